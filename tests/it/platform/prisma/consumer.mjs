// A webhook consumer of a platform, written with Prisma's client. Each line of the input is an event: a newer version of an order.
import { createInterface } from "node:readline";
import { PrismaPg } from "@prisma/adapter-pg";
import prisma from "./generated/index.js";

const client = new prisma.PrismaClient({ adapter: new PrismaPg({ connectionString: process.env.DATABASE_URL }) });
const merchant = await client.merchant.upsert({
  where: { sallaMerchantId: 1001n },
  create: { sallaMerchantId: 1001n, name: "A store" },
  update: {},
});

async function consume(event) {
  const sallaOrderId = BigInt(event.id);
  const version = { sallaUpdatedAt: new Date(event.updated_at), status: event.status, totalAmount: event.total };
  return client.$transaction(async (transaction) => {
    const where = { merchantId: merchant.id, sallaOrderId };
    const { count } = await transaction.order.updateMany({
      where: { ...where, sallaUpdatedAt: { lt: version.sallaUpdatedAt } },
      data: version,
    });
    if (count > 0 || (await transaction.order.findFirst({ where }))) {
      return count;
    }
    const created = { ...where, ...version, currency: event.currency };
    return (await transaction.order.createMany({ data: created, skipDuplicates: true })).count;
  });
}

let written = 0;
for await (const line of createInterface({ input: process.stdin })) {
  written += await consume(JSON.parse(line));
}
await client.$disconnect();
console.log(`${written} rows written`);
