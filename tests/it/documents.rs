//! Every command in a `sh` or `console` block of the documents is run, or named here with the test that runs it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use sea_orm::ConnectionTrait;

use crate::{
    platform::tables::Framework,
    support::{Engine, Site, daemon::Daemon, site::shop},
};

/// Commands that are not run by these tests, by how they begin, and what stands in for that.
const ELSEWHERE: [(&str, &str); 21] = [
    ("curl -fsS -X PUT", "`onboarding.rs` pushes tokens"),
    ("cargo run --profile try -- demo", "`.ci/try-budget` does, with --once, and `demo.rs` reads what it says"),
    ("curl -fsS 'localhost:8080/runs?limit=1'", "the demo has no token; `demo.rs` uses its API"),
    (
        "curl -fsS -H \"Authorization: Bearer $TOKEN\" localhost:8080/merchants/1001/token",
        "`beside_a_platform.rs` asks so",
    ),
    ("salla-reconciler simulate", "`simulate.rs` starts it, and reads what it prints"),
    ("curl -fsS http://127.0.0.1:8090/merchants.jsonl", "`simulate.rs` imports the same"),
    ("tests/run", "the test of this file"),
    ("cargo install --locked --path .", "`.ci/run` builds the same"),
    ("salla-reconciler serve", "what follows is asked of it"),
    ("cargo bench --locked --bench scale", "an hour; its results are in docs/how-to/size-a-deployment.md"),
    ("cargo bench --locked --bench floor", "twelve minutes; its results are in docs/explanation/performance.md"),
    ("docker build", "`.ci/image` builds the Dockerfile with podman"),
    ("docker compose up", "`.ci/image` runs the services with podman-compose"),
    ("cd deploy/compose", "the same"),
    ("kubectl create namespace", "a cluster; `.ci/deploy` holds the manifests to Kubernetes' schemas"),
    ("kubectl label namespace", "the same"),
    ("kubectl -n salla-reconciler create secret", "the same"),
    ("kubectl apply", "the same"),
    ("kubectl -n salla-reconciler rollout", "the same"),
    ("kubectl -n salla-reconciler exec", "the same"),
    ("aws cloudformation deploy", "an account; `.ci/deploy` has cfn-lint read the template"),
];

/// A command, and where it stands.
#[derive(Debug, Clone)]
struct Shown {
    place: String,
    text: String,
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The documents of the project, also those in folders of `docs`.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md"].iter().map(|page| project().join(page)).collect();
    let mut folders = vec![project().join("docs")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

/// What stands in the page's fences of these languages: each with its first line's number.
fn fences(page: &Path, languages: &[&str]) -> Vec<(usize, String, Vec<String>)> {
    let mut found: Vec<(usize, String, Vec<String>)> = Vec::new();
    let mut open = false;
    for (number, line) in fs::read_to_string(page).unwrap().lines().enumerate() {
        // A fence in a list is indented.
        let line = line.trim_start_matches("   ");
        match line.strip_prefix("```") {
            Some(language) if !open => {
                open = true;
                found.push((number + 1, language.to_owned(), Vec::new()));
            }
            Some(_) => open = false,
            None if open => found.last_mut().unwrap().2.push(line.to_owned()),
            None => {}
        }
    }
    found.retain(|(_, language, _)| languages.contains(&language.as_str()));
    found
}

/// The commands of a page, in their order; lines that go on are one, and so is a text that is fed to one.
fn commands(page: &Path) -> Vec<Shown> {
    let mut commands: Vec<Shown> = Vec::new();
    for (number, language, lines) in fences(page, &["sh", "console"]) {
        let (mut goes_on, mut fed_until) = (false, None::<String>);
        for line in lines {
            if let Some(end) = &fed_until {
                let done = line == *end;
                commands.last_mut().unwrap().text += &format!("\n{line}");
                if done {
                    fed_until = None;
                }
                continue;
            }
            let command = if language == "console" { line.strip_prefix("$ ") } else { Some(line.as_str()) };
            let Some(command) = command else { continue };
            if goes_on {
                commands.last_mut().unwrap().text += &format!("\n{command}");
            } else {
                let place = format!("{}:{number}", page.strip_prefix(project()).unwrap().display());
                commands.push(Shown { place, text: command.to_owned() });
            }
            goes_on = command.ends_with('\\');
            fed_until = command.split_once("<<").map(|(_, word)| word.trim().to_owned());
        }
    }
    commands
}

fn is_run_elsewhere(command: &Shown) -> bool {
    ELSEWHERE.iter().any(|(begins, _)| command.text.starts_with(begins))
}

/// Runs commands in one shell, which stops at the first that fails, in the folder of the site.
fn shell(site: &Site, daemon: Option<&Daemon>, commands: &[Shown]) -> String {
    let mut script = "set -euo pipefail\n".to_owned();
    for command in commands {
        // The values that the reader has to fill in.
        let text = command
            .text
            .replace("postgres://user:password@host/platform", &site.database.url)
            .replace("CLIENT_ID=…", "CLIENT_ID=app")
            .replace("CLIENT_SECRET=…", "CLIENT_SECRET=app-secret-canary");
        let text = daemon.map_or_else(
            || text.clone(),
            |daemon| text.replace("localhost:8080", daemon.url.trim_start_matches("http://")),
        );
        script += &format!("echo '>>> {}' >&2\n{text}\n", command.place);
    }
    let program = Path::new(env!("CARGO_BIN_EXE_salla-reconciler")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let mut bash = Command::new("bash");
    bash.args(["-c", &script]).current_dir(site.folder.path()).env_clear().env("PATH", path).env("TOKEN", TOKEN);
    bash.envs(site.environment());
    let output = bash.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}\n{}\n{script}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).unwrap()
}

const TOKEN: &str = "documentation-token-canary";

#[test]
fn listed_commands_exist() {
    let all: Vec<Shown> = pages().iter().flat_map(|page| commands(page)).collect();
    for (begins, instead) in ELSEWHERE {
        assert!(all.iter().any(|command| command.text.starts_with(begins)), "no page has {begins:?} ({instead})");
    }
    let ci = fs::read_to_string(project().join(".ci/run")).unwrap();
    for command in ["tests/run", ".ci/try-budget", ".ci/deploy"] {
        assert!(ci.contains(command), ".ci/run does not run {command}");
    }
}

/// The commands of the README, from an empty database to a first run, on PostgreSQL.
#[tokio::test(flavor = "multi_thread")]
async fn the_readme_installs_and_runs() {
    let mut site = Site::unregistered(Engine::Postgres16, [shop(1001, 0, 3), shop(1002, 0, 2)]).await;
    // The reader sets these; the others stay, for they point to the simulated Salla.
    for key in ["DATABASE__URL", "VAULT__KEYS", "SALLA__CLIENT_ID", "SALLA__CLIENT_SECRET"] {
        site.unset(key);
    }
    let merchants: Vec<String> = [1001, 1002].map(|store| site.salla.registration(store).unwrap()).to_vec();
    fs::write(site.folder.path().join("merchants.jsonl"), merchants.join("\n")).unwrap();
    let shown: Vec<Shown> = commands(&project().join("README.md"));
    let begin = shown.iter().position(|command| command.text.contains("DATABASE__URL")).unwrap();
    let end = shown.iter().position(|command| command.text == "salla-reconciler serve").unwrap();
    assert!(end - begin >= 7, "{shown:?}");
    let said = tokio::task::block_in_place(|| shell(&site, None, &shown[begin..end]));
    assert!(said.contains("Dry run: no record was written."), "{said}");
    assert_eq!(site.database.number("SELECT count(*) FROM merchants").await, 2);
    assert_eq!(site.database.number("SELECT count(*) FROM orders").await, 5, "what the stores had before is loaded");
}

const ADOPTION: &str = "docs/how-to/adopt-an-existing-platform.md";

/// The commands of the page, on a fresh Prisma platform with orders in it: some are missing, and one is stale.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_about_an_existing_platform_leads_to_a_reconciled_night() {
    let site = Site::unregistered(Engine::Postgres16, [shop(1001, 40, 0)]).await;
    site.database.db.execute_unprepared(Framework::Prisma.ddl()).await.unwrap();
    let (stale, right) = {
        let mut world = site.salla.world();
        let orders = &world.shop(1001).orders;
        (orders[0].clone(), orders[1].clone())
    };
    for (order, status) in [(&stale, "PAYMENT_PENDING".to_owned()), (&right, right.slug().to_uppercase())] {
        let insert = format!(
            r#"INSERT INTO public."Order" ("id", "merchantId", "sallaOrderId", "referenceId", "status", "currency", "totalAmount", "sallaCreatedAt", "sallaUpdatedAt", "payload", "updatedAt")
               VALUES ('{0}', 'cm1x9k2p40000', {0}, '{1}', '{status}', '{2}', {3} / 100.0, to_timestamp({4}) AT TIME ZONE 'UTC', to_timestamp({5}) AT TIME ZONE 'UTC', '{6}', now())"#,
            order.id,
            order.reference_id,
            order.currency,
            order.total,
            order.created_at.timestamp(),
            order.updated_at.timestamp() - i64::from(order.id == stale.id),
            order.json(),
        );
        site.database.execute(&insert, []).await;
    }
    fs::write(site.folder.path().join("merchants.jsonl"), site.salla.registration(1001).unwrap()).unwrap();
    let shown: Vec<Shown> = commands(&project().join(ADOPTION))
        .into_iter()
        .filter(|command| !is_run_elsewhere(command))
        .map(|command| Shown {
            text: command.text.replace("psql platform", &format!("psql '{}'", site.database.url)),
            ..command
        })
        .collect();
    let said = tokio::task::block_in_place(|| shell(&site, None, &shown));
    assert!(said.contains("ok    target: target.orders"), "{said}");
    assert_eq!(site.database.number("SELECT count(*) FROM public.\"Order\"").await, 40, "{said}");
    let totals = "SELECT created || ' ' || updated || ' ' || unchanged FROM salla.runs WHERE NOT dry_run";
    assert_eq!(site.database.text(totals).await, "38 1 1");
}

/// Every other command of every page, asked of a daemon that runs.
#[tokio::test(flavor = "multi_thread")]
async fn every_other_command_works() {
    let mut site = Site::new(Engine::Postgres16, [shop(1001, 0, 3)]).await;
    site.set("HTTP__API_TOKENS", &format!("oncall:operate:{TOKEN}"));
    let site = Arc::new(site);
    let daemon = site.serve().await;
    let mut ran = 0;
    for page in pages().into_iter().filter(|page| !page.ends_with(ADOPTION)) {
        let readme_s_way = |command: &Shown| {
            [
                "export ",
                "salla-reconciler migrate up",
                "salla-reconciler merchants import",
                "salla-reconciler run --dry-run",
                "salla-reconciler run --full",
            ]
            .iter()
            .any(|begins| command.text.starts_with(begins))
        };
        for command in commands(&page) {
            if is_run_elsewhere(&command) || readme_s_way(&command) {
                continue;
            }
            let (site, command) = (&site, &[command]);
            tokio::task::block_in_place(|| shell(site, Some(&daemon), command));
            ran += 1;
        }
    }
    assert!(ran >= 12, "{ran}");
}

#[tokio::test]
async fn the_sql_of_every_page_works() {
    let site = Site::unregistered(Engine::Postgres16, []).await;
    site.run(&["migrate", "up"]).await.exits(0);
    let mut ran = 0;
    for page in pages() {
        for (number, _, lines) in fences(&page, &["sql"]) {
            let sql = lines.join("\n");
            println!("{}:{number}", page.display());
            site.database.execute(&sql, []).await;
            ran += 1;
        }
    }
    assert!(ran >= 5, "{ran}");
}

/// Every relative link of every page leads to a file, and to a heading in it.
#[test]
fn links_lead_somewhere() {
    let mut checked = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            assert!(file.exists(), "{}: {target} leads nowhere", page.display());
            if !anchor.is_empty() {
                let headings = fs::read_to_string(&file).unwrap();
                let headings = headings.lines().filter(|line| line.starts_with('#')).map(anchor_of);
                assert!(headings.into_iter().any(|one| one == anchor), "{}: {target} names no heading", page.display());
            }
            checked += 1;
        }
    }
    assert!(checked >= 100, "{checked}");
}

/// The anchor that GitHub gives to a heading.
fn anchor_of(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_'));
    kept.map(|char| if char == ' ' { '-' } else { char }).collect()
}
