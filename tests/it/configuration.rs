//! A bad configuration ends the program with 78. One line names the key, the source and the fix. A
//! machine that does not fit ends it with 1, and one line says so.

use salla_reconciler::config::{Config, DEFAULTS, keys, variable};

use crate::support::{Engine, Site, site::shop};

#[test]
fn the_defaults_load_and_every_key_has_a_comment() {
    Config::defaults().unwrap();
    let mut commented = true;
    for line in DEFAULTS.lines() {
        if line.contains(" = ") && !line.starts_with('#') {
            // A secret's file is described once, at `database.url_file`.
            let has_no_comment_of_its_own = line.starts_with("client_secret") || line.contains("_file =");
            assert!(commented || has_no_comment_of_its_own, "{line} has no comment");
            commented = false;
        } else if line.starts_with('#') {
            commented = true;
        }
    }
    assert_eq!(keys().len(), 69);
    assert_eq!(variable("http.api_token"), "SALLA_RECONCILER__HTTP__API_TOKEN");
}

#[tokio::test]
async fn bad_values_name_source_and_fix() {
    for (key, value, words) in [
        ("SALLA__MAX_ATTEMPTS", "many", "salla.max_attempts"),
        ("SALLA__MAX_ATTEMPTS", "0", "salla.max_attempts"),
        ("SALLA__MAX_ATTEMPTS", "-1", "salla.max_attempts"),
        ("SALLA__LIMIT_SHARE", "1.5", "salla.limit_share"),
        ("SALLA__MAX_REQUESTS_PER_MINUTE", "0", "salla.max_requests_per_minute"),
        ("SALLA__CUSTOMER_REQUESTS_PER_10_MINUTES", "0", "salla.customer_requests_per_10_minutes"),
        ("RECONCILE__MAX_DELETION_RATIO", "1.5", "reconcile.max_deletion_ratio"),
        ("SALLA__PROXY", "proxy:3128", "salla.proxy"),
        ("SALLA__LISTING", "scann", "salla.listing"),
        ("SALLA__LISTING", "scann", "one of auto, filter, sort, scan"),
        ("VAULT__BACKEND", "vault", "one of local, kms, secrets_manager"),
        ("PRIVACY__CUSTOMER_FIELDS", "anon", "one of full, pseudonymous, none"),
        ("SALLA__REQUEST_TIMEOUT", "5", "salla.request_timeout"),
        ("SALLA__API_URL", "http://api.salla.dev", "salla.api_url"),
        ("SALLA__API_URL", "nonsense", "salla.api_url"),
        ("SCHEDULE__CRON", "0 2 * * *", "schedule.cron"),
        ("SCHEDULE__TIMEZONE", "Asia/Riyad", "schedule.timezone"),
        ("RECONCILE__LOOKBACK", "a day", "reconcile.lookback"),
        ("RECONCILE__CONCURRENCY", "0", "reconcile.concurrency"),
        ("HTTP__LISTEN", "8080", "http.listen"),
        ("HTTP__REQUESTS_PER_SECOND", "0", "http.requests_per_second"),
        ("HTTP__API_TOKENS", "ci:read", "http.api_tokens: entry 1 is not"),
        ("HTTP__API_TOKENS", "ci:admin:0123456789abcdef", "http.api_tokens: entry 1 has a scope"),
        ("HTTP__API_TOKENS", "ci:read:0123456789abcdef,ci:read:short", "http.api_tokens: entry 2 has a token"),
        ("DATABASE__URL", "mysql://x", "database.url"),
        ("DATABASE__MIGRATE", "maybe", "database.migrate"),
        ("TELEMETRY__LOG_FORMAT", "xml", "one of auto, json, text"),
        ("CDC__WEBHOOK_URL", "pipeline.example/runs", "cdc.webhook_url"),
        ("CDC__WEBHOOK_URL", "ftp://pipeline.example/runs", "cdc.webhook_url"),
        ("CDC__WEBHOOK_URL", "https://me:its-password-canary@pipeline.example/runs", "cdc.webhook_url"),
        ("CDC__PUBLICATION", "warehouse", "cdc.publication"),
        ("CDC__SLOT", "warehouse", "cdc.slot"),
        ("SALLA__API_URI", "https://api.salla.dev", "salla.api_url"),
        ("SURPRISE__KEY", "1", "surprise.key"),
    ] {
        let mut site = Site::unregistered(Engine::Sqlite, []).await;
        site.set(key, value);
        for command in [&["run"][..], &["serve"], &["check"], &["migrate", "status"]] {
            let output = site.run(command).await.exits(78);
            assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
            for word in [words, &format!("SALLA_RECONCILER__{key}"), ";"] {
                assert!(output.stderr.contains(word), "no {word} in {}", output.stderr);
            }
        }
    }
}

#[tokio::test]
async fn keys_may_come_from_a_file() {
    let mut site = Site::unregistered(Engine::Sqlite, [shop(1001, 0, 1)]).await;
    let file = site.folder.path().join("keys");
    site.set("VAULT__KEYS_FILE", file.to_str().unwrap());
    let refused = async |site: &Site, words: &str| {
        let told = site.run(&["run"]).await.exits(78).stderr;
        assert!(told.contains(words) && told.contains("SALLA_RECONCILER__VAULT__KEYS_FILE"), "{told}");
    };
    refused(&site, "is set in addition to vault.keys").await;
    site.unset("VAULT__KEYS");
    refused(&site, "cannot be read: No such file").await;
    std::fs::write(&file, "\n").unwrap();
    refused(&site, "is empty").await;
    std::fs::write(&file, [0xff, 0xfe]).unwrap();
    refused(&site, "cannot be read").await;
    // The first line's key seals, all open.
    let (old, new) = (site.new_key("old").await, site.new_key("new").await);
    std::fs::write(&file, format!("{old}\n")).unwrap();
    site.register(1001).await;
    std::fs::write(&file, format!("{new}\r\n{old}\n")).unwrap();
    site.run(&["run"]).await.exits(0);
    assert!(site.run(&["keys", "rotate"]).await.exits(0).stdout.contains("new"));
    std::fs::write(&file, new).unwrap();
    site.run(&["run"]).await.exits(0);
    std::fs::write(&file, "nonsense").unwrap();
    let told = site.run(&["run"]).await.exits(78).stderr;
    assert!(told.contains("entry 1 is not ID:BASE64"), "{told}");
}

/// A token backend that cannot be used is reported before anything begins.
#[cfg(feature = "aws")]
#[tokio::test]
async fn backends_need_their_settings() {
    for (settings, words) in [
        (vec![("VAULT__BACKEND", "vault")], "vault.backend"),
        (vec![("VAULT__BACKEND", "kms")], "vault.kms_key: is not set, and vault.backend = kms needs it"),
        (vec![("VAULT__SECRETS_PREFIX", "")], "vault.secrets_prefix: cannot be the beginning of the name of a secret"),
        (vec![("VAULT__SECRETS_PREFIX", "my secrets/")], "vault.secrets_prefix"),
    ] {
        let mut site = Site::unregistered(Engine::Sqlite, []).await;
        for (key, value) in settings {
            site.set(key, value);
        }
        let told = site.run(&["check"]).await.exits(78).stderr;
        assert!(told.contains(words), "{told}");
    }
    // With a backend elsewhere, keys are not needed.
    let mut site = Site::unregistered(Engine::Sqlite, []).await;
    site.set("VAULT__BACKEND", "secrets_manager");
    site.unset("VAULT__KEYS");
    site.set_variable("AWS_EC2_METADATA_DISABLED", "true");
    site.run(&["migrate", "up"]).await.exits(0);
    let check = site.run(&["check"]).await.exits(1).stdout;
    assert!(check.contains("FAIL  vault: no AWS region is set: set AWS_REGION"), "{check}");
}

/// Fields that the program does not keep would be NULL in the tables of the platform.
#[tokio::test]
async fn customers_of_a_platform_need_all_their_fields() {
    for (fields, is_refused) in [("none", true), ("pseudonymous", true), ("full", false)] {
        let mut site = Site::unregistered(Engine::Sqlite, []).await;
        for (key, value) in [
            ("DATABASE__URL", "postgres://someone@127.0.0.1:9/none"),
            ("TARGET__CUSTOMERS__VIEW", "salla.platform_customers"),
            ("TARGET__CUSTOMERS__FUNCTION", "salla.write_platform_customers"),
            ("PRIVACY__CUSTOMER_FIELDS", fields),
            ("PRIVACY__PSEUDONYM_KEY", "0123456789abcdef0123456789abcdef"),
        ] {
            site.set(key, value);
        }
        let told = site.run(&["migrate", "status"]).await.exits(if is_refused { 78 } else { 1 }).stderr;
        let words =
            format!("target.customers.view: would empty columns of the platform: privacy.customer_fields is {fields}");
        assert_eq!(told.contains(&words), is_refused, "{fields}: {told}");
    }
}

/// The keys of the hand-over go together.
#[tokio::test]
async fn cdc_settings_must_be_complete() {
    let (url, secret) = ("CDC__WEBHOOK_URL", "CDC__WEBHOOK_SECRET");
    for (settings, words) in [
        (vec![(url, "https://pipeline.example/runs")], "cdc.webhook_secret: is empty"),
        (vec![(url, "https://pipeline.example/runs"), (secret, "whsec_?")], "cdc.webhook_secret: is not base64"),
        (vec![("CDC__SLOT", "warehouse")], "cdc.slot: is set without cdc.webhook_url"),
        (vec![("CDC__EVENTS", "record")], "cdc.events: is set without cdc.webhook_url"),
        (vec![("CDC__SKIP_UNCHANGED", "true")], "cdc.skip_unchanged: is set without cdc.webhook_url"),
        (vec![("CDC__SLOT", "Ware-House")], "cdc.slot: cannot be the name"),
        (vec![("CDC__PUBLICATION", &"x".repeat(64))], "cdc.publication: is not a valid name"),
    ] {
        let mut site = Site::unregistered(Engine::Sqlite, []).await;
        site.set("DATABASE__URL", "postgres://someone@127.0.0.1:9/none");
        for (key, value) in settings {
            site.set(key, value);
        }
        let told = site.run(&["run"]).await.exits(78).stderr;
        assert!(told.contains(words) && told.lines().count() == 1, "{told}");
    }
}

#[tokio::test]
async fn files_are_layered_and_named() {
    let mut site = Site::unregistered(Engine::Sqlite, []).await;
    site.unset("SALLA__REQUEST_TIMEOUT");
    let file = site.folder.path().join("mine.toml");
    std::fs::write(&file, "[salla]\nrequest_timeout = \"soon\"\n").unwrap();
    let file = file.to_str().unwrap();
    let output = site.run(&["--config", file, "migrate", "status"]).await.exits(78);
    assert!(output.stderr.contains("mine.toml"), "{}", output.stderr);
    site.set("SALLA__REQUEST_TIMEOUT", "5s");
    site.run(&["--config", file, "migrate", "status"]).await.exits(0);
    std::fs::write(file, "[salla]\ntimeout = \"5s\"\n").unwrap();
    let output = site.run(&["--config", file, "migrate", "status"]).await.exits(78);
    assert!(output.stderr.contains("salla.timeout") && output.stderr.contains("mine.toml"), "{}", output.stderr);
    let output = site.run(&["--config", "nowhere.toml", "migrate", "status"]).await.exits(78);
    for words in ["nowhere.toml", "--config"] {
        assert!(output.stderr.contains(words), "{}", output.stderr);
    }
    let mut command = site.command(&["migrate", "status"]);
    command.env("SALLA_RECONCILER_ENV", "production");
    let output = site.output(command, "").await.exits(78);
    for words in ["config/production.toml", "SALLA_RECONCILER_ENV"] {
        assert!(output.stderr.contains(words), "{}", output.stderr);
    }
}

#[tokio::test]
async fn commands_that_need_keys_fail_without() {
    let mut site = Site::unregistered(Engine::Sqlite, []).await;
    for keys in ["", "k:short", "nonsense"] {
        site.set("VAULT__KEYS", keys);
        for command in [&["run"][..], &["serve"], &["merchants", "import", "-"], &["keys", "rotate"]] {
            let output = site.run(command).await.exits(78);
            assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
            let source = if keys.is_empty() { "the default" } else { "variable SALLA_RECONCILER__VAULT__KEYS" };
            for words in ["vault.keys", "keys generate", source] {
                assert!(output.stderr.contains(words), "{}", output.stderr);
            }
        }
    }
    site.unset("VAULT__KEYS");
    site.run(&["keys", "generate"]).await.exits(0);
    let nameless = site.run(&["keys", "generate", "--id", "a b"]).await.exits(2);
    assert!(nameless.stderr.contains("--id"), "{nameless:?}");
    site.run(&["merchants", "list"]).await.exits(0);
}

#[tokio::test]
async fn wrong_usage_exits_with_2() {
    let site = Site::new(Engine::Sqlite, [shop(1001, 0, 1)]).await;
    for command in [
        &[][..],
        &["fly"],
        &["run", "--merchant", "x"],
        &["run", "--since", "yesterday"],
        &["run", "--full", "--since", "2026-11-20T00:00:00Z"],
        &["run", "--since", "2026-11-20T00:00:00Z", "--until", "2026-11-19T00:00:00Z"],
    ] {
        site.run(command).await.exits(2);
    }
}

#[tokio::test]
async fn unusable_addresses_are_reported() {
    let mut site = Site::new(Engine::Sqlite, [shop(1001, 0, 1)]).await;
    let held = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let taken = held.local_addr().unwrap().to_string();
    site.set("HTTP__LISTEN", &taken);
    let output = site.run(&["serve"]).await.exits(1);
    assert!(output.stderr.contains(&taken) && output.stderr.contains("http.listen"), "{}", output.stderr);
    let output = site.run(&["healthcheck"]).await;
    assert_eq!(output.code, 1, "{output:?}");

    let free = held.local_addr().unwrap().port();
    drop(held);
    site.set("DATABASE__URL", &format!("postgres://someone@127.0.0.1:{free}/none"));
    let output = site.run(&["run"]).await.exits(1);
    assert!(output.stderr.contains("cannot be used") && output.stderr.contains("database.url"), "{}", output.stderr);
    site.set("DATABASE__URL", "sqlite://no/such/folder/x.db?mode=rwc");
    let output = site.run(&["run"]).await.exits(1);
    assert!(output.stderr.contains("database.url"), "{}", output.stderr);
}

#[tokio::test]
async fn an_old_schema_and_a_read_only_file() {
    let mut site = Site::unregistered(Engine::Sqlite, []).await;
    site.set("DATABASE__MIGRATE", "false");
    let output = site.run(&["run"]).await.exits(1);
    assert!(output.stderr.contains("migrate up"), "{}", output.stderr);
    let check = site.run(&["check"]).await.exits(1);
    assert!(check.stdout.contains("FAIL  schema") && check.stdout.contains("migrate up"), "{}", check.stdout);
    site.run(&["migrate", "up"]).await.exits(0);
    site.run(&["run"]).await.exits(0);

    site.set("DATABASE__URL", &site.database.url.replace("mode=rwc", "mode=ro"));
    site.set("DATABASE__MIGRATE", "true");
    site.run(&["migrate", "down"]).await.exits(1);
    site.unset("DATABASE__MIGRATE");
    let output = site.import(r#"{"merchant_id":1,"access_token":"a"}"#).await.exits(1);
    assert!(output.stderr.contains("readonly") || output.stderr.contains("read-only"), "{}", output.stderr);
}

#[tokio::test]
async fn check_passes_on_a_working_installation() {
    let site = Site::new(Engine::Sqlite, [shop(1001, 0, 1)]).await;
    let output = site.run(&["check"]).await.exits(0);
    for line in ["ok    configuration", "ok    database", "ok    schema", "ok    vault", "ok    salla", "ok    clocks"]
    {
        assert!(output.stdout.contains(line), "{}", output.stdout);
    }
    site.salla.world().clock_ahead = chrono::TimeDelta::hours(1);
    assert!(site.run(&["check"]).await.exits(1).stdout.contains("FAIL  clocks"));
}

#[tokio::test]
async fn every_help_text_has_examples_and_environment() {
    let site = Site::unregistered(Engine::Sqlite, []).await;
    let commands = [
        "serve",
        "run",
        "report",
        "demo",
        "check",
        "healthcheck",
        "openapi",
        "completions",
        "merchants import",
        "merchants list",
        "merchants pause",
        "merchants resume",
        "merchants remove",
        "migrate up",
        "migrate down",
        "migrate status",
        "keys generate",
        "keys rotate",
    ];
    for command in commands {
        let args: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let output = site.run(&args).await.exits(0);
        for part in ["Environment:", "Examples:\n  ", command] {
            assert!(output.stdout.contains(part), "{command} does not say {part:?}: {}", output.stdout);
        }
    }
}

/// The scripts are read by the shells that they are for, where those are here, and know every command.
#[tokio::test]
async fn shell_completions_work() {
    let site = Site::unregistered(Engine::Sqlite, []).await;
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = site.run(&["completions", shell]).await.exits(0).stdout;
        for word in ["healthcheck", "merchants", "dry-run"] {
            assert!(script.contains(word), "{shell}: no {word} in {script}");
        }
        if shell == "bash" {
            let read = std::process::Command::new("bash").args(["-n", "-c", &script]).output().unwrap();
            assert!(read.status.success() && read.stderr.is_empty(), "{}", String::from_utf8_lossy(&read.stderr));
        }
    }
    site.run(&["completions", "none"]).await.exits(2);
}

/// A setting that nothing reads can leave the API open.
#[tokio::test]
async fn unknown_environment_variables_are_refused() {
    for (name, meant) in [
        ("SALLA_RECONCILER_HTTP__API_TOKEN", "SALLA_RECONCILER__HTTP__API_TOKEN"),
        ("SALLA_RECONCILER_HTTP_API_TOKENS", "SALLA_RECONCILER__HTTP__API_TOKENS"),
        ("SALLA_RECONCILER_DATABASE__URL", "SALLA_RECONCILER__DATABASE__URL"),
        ("SALLA_RECONCILER_ENVIRONMENT", "SALLA_RECONCILER_ENV"),
        ("SALLA_RECONCILER_SURPRISE", "SALLA_RECONCILER__SECTION__KEY"),
    ] {
        let mut site = Site::unregistered(Engine::Sqlite, []).await;
        site.set_variable(name, "variable-canary-0123");
        for command in [&["run"][..], &["serve"], &["check"], &["merchants", "list"]] {
            let told = site.run(command).await.exits(78).stderr;
            assert_eq!(told.lines().count(), 1, "{told}");
            assert!(told.contains(name) && told.contains(meant) && !told.contains("canary"), "{told}");
        }
    }
    // Kubernetes sets these in every pod beside a Service of this name.
    let mut site = Site::new(Engine::Sqlite, [shop(1001, 0, 1)]).await;
    for (name, value) in [
        ("SERVICE_HOST", "10.0.0.1"),
        ("SERVICE_PORT", "8080"),
        ("SERVICE_PORT_HTTP", "8080"),
        ("PORT", "tcp://10.0.0.1:8080"),
        ("PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("PORT_8080_TCP_ADDR", "10.0.0.1"),
    ] {
        site.set_variable(&format!("SALLA_RECONCILER_{name}"), value);
    }
    site.run(&["run"]).await.exits(0);
}

/// `serve` and `run` with every secret from a file, one after the other, and with line ends and a byte order mark.
#[tokio::test]
async fn every_secret_may_come_from_a_file() {
    let mut site = Site::new(Engine::Sqlite, [shop(1001, 0, 1)]).await;
    site.set("SALLA__WEBHOOK_SECRET", "webhook-canary-0123");
    site.set("HTTP__API_TOKEN", "operator-canary-0123");
    site.set("HTTP__API_TOKENS", "grafana:read:reader-canary-0123");
    let secrets: Vec<String> =
        keys().into_iter().filter_map(|key| key.strip_suffix("_file").map(str::to_owned)).collect();
    assert_eq!(secrets.len(), 11, "{secrets:?}");
    for key in &secrets {
        let variable = key.replace('.', "__").to_uppercase();
        let value = site.environment().get(&format!("SALLA_RECONCILER__{variable}")).cloned();
        let Some(value) = value else { continue };
        let file = site.folder.path().join(key);
        std::fs::write(&file, format!("\u{feff}{value}\r\n")).unwrap();
        site.set(&format!("{variable}_FILE"), file.to_str().unwrap());
        let told = site.run(&["run"]).await.exits(78).stderr;
        assert!(told.contains(&format!("is set in addition to {key}")), "{told}");
        site.unset(&variable);
    }
    assert_eq!(site.reconcile(1001, &[]).await["status"], "succeeded");
    let daemon = site.serve().await;
    assert_eq!(daemon.get("/runs").await.0, 401);
    for token in ["operator-canary-0123", "reader-canary-0123"] {
        assert_eq!(daemon.call_with_token("/runs", token).await, 200);
    }
    drop(daemon);
    for key in secrets {
        let variable = format!("{}_FILE", key.replace('.', "__").to_uppercase());
        let mut command = site.command(&["check"]);
        command.env(format!("SALLA_RECONCILER__{variable}"), "/nowhere/path-canary-0123");
        command.env_remove(format!("SALLA_RECONCILER__{}", variable.trim_end_matches("_FILE")));
        let told = site.output(command, "").await.exits(78).stderr;
        assert!(told.contains(&variable) && told.contains("cannot be read") && !told.contains("canary"), "{told}");
    }
}

/// The database holds tokens and the customers' data, and a key file opens the tokens.
#[tokio::test]
async fn files_with_secrets_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let mut site = Site::unregistered(Engine::Sqlite, [shop(1001, 0, 1)]).await;
    let database = site.folder.path().join("made.db");
    site.set("DATABASE__URL", &format!("sqlite://{}?mode=rwc", database.display()));
    site.register(1001).await;
    let daemon = site.serve().await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(site.folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("made.db") {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
            names.push(path);
        }
    }
    assert!(names.len() > 1, "the journal is not there: {names:?}");
    let clean = site.run(&["check"]).await.stdout;
    assert!(!clean.contains("warn  file modes"), "{clean}");
    drop(daemon);

    let keys = site.folder.path().join("keys");
    std::fs::write(&keys, site.environment()["SALLA_RECONCILER__VAULT__KEYS"].as_bytes()).unwrap();
    site.unset("VAULT__KEYS");
    site.set("VAULT__KEYS_FILE", keys.to_str().unwrap());
    for (path, key, wrong) in
        [(&keys, "vault.keys_file", 0o666), (&keys, "vault.keys_file", 0o644), (&database, "database.url", 0o644)]
    {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(wrong)).unwrap();
        let check = site.run(&["check"]).await.stdout;
        let line = check.lines().find(|line| line.starts_with("warn  file modes")).unwrap_or_else(|| panic!("{check}"));
        assert!(line.contains(key) && line.contains(&format!("{wrong:04o}")), "{line}");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    assert!(!site.run(&["check"]).await.stdout.contains("warn  file modes"));

    let settings = site.folder.path().join("settings.toml");
    let check = async |text: &str| {
        std::fs::write(&settings, text).unwrap();
        std::fs::set_permissions(&settings, std::fs::Permissions::from_mode(0o644)).unwrap();
        site.run(&["check", "--config", settings.to_str().unwrap()]).await.stdout
    };
    let loose = check("[http]\napi_token = \"0123456789abcdef0123\"").await;
    assert!(loose.contains("warn  file modes") && loose.contains("http.api_token"), "{loose}");
    let harmless = check("[cdc]\nwebhook_url = \"https://events.example/hook\"").await;
    assert!(!harmless.contains("warn  file modes"), "{harmless}");
}
