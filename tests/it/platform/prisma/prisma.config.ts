// Prisma without its binaries: the engines run as WebAssembly, over the driver of Node.
import { PrismaPg } from "@prisma/adapter-pg";
import pg from "pg";
import { defineConfig } from "prisma/config";

// The schema engine reads columns of PostgreSQL's catalogue types "char" and name, which the adapter does not know: as text.
const AS_TEXT: Record<number, number> = { 18: 25, 19: 25, 1002: 1009, 1003: 1009 };

function asText(result: any) {
  for (const field of result?.fields ?? []) field.dataTypeID = AS_TEXT[field.dataTypeID] ?? field.dataTypeID;
  return result;
}

function pool(url: string) {
  const pool = new pg.Pool({ connectionString: url, allowExitOnIdle: true, idleTimeoutMillis: 100 });
  pool.on("connect", (client: any) => {
    const query = client.query.bind(client);
    client.query = (...args: any[]) => {
      const callback = args.at(-1);
      if (typeof callback === "function") return query(...args.slice(0, -1), (error: any, result: any) => callback(error, asText(result)));
      const answer = query(...args);
      return answer?.then ? answer.then(asText) : answer;
    };
  });
  return pool;
}

const url = process.env.DATABASE_URL!;

// `migrate dev` replays all migrations in an empty database beside the real one.
async function shadow() {
  const admin = new pg.Client({ connectionString: url });
  await admin.connect();
  const name = `shadow_${process.pid}`;
  await admin.query(`DROP DATABASE IF EXISTS ${name}`);
  await admin.query(`CREATE DATABASE ${name}`);
  await admin.end();
  const address = new URL(url);
  address.pathname = `/${name}`;
  return new PrismaPg(pool(address.href), { disposeExternalPool: true }).connect();
}

export default defineConfig({
  experimental: { adapter: true },
  engine: "js",
  adapter: async () => Object.assign(new PrismaPg(pool(url), { disposeExternalPool: true }), { connectToShadowDb: shadow }),
});
