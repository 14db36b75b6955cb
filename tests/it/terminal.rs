//! What somebody sees who sits at a terminal.

use std::{fs::File, io::Read, process::Stdio, time::Duration};

use nix::pty::{Winsize, openpty};
use salla_reconciler::simulator::Fault;

use crate::support::{Engine, Site, site::shop};

/// Runs a command at a terminal of this width, and gives all that it shows there.
async fn shown(site: &Site, args: &[&str], columns: u16, environment: &[(&str, &str)]) -> String {
    let size = Winsize { ws_row: 40, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(Some(&size), None).unwrap();
    let mut command = site.command(args);
    // As people have it.
    command.env_remove("RUST_LOG").env("TERM", "xterm-256color").envs(environment.iter().copied());
    let slave = || Stdio::from(terminal.slave.try_clone().unwrap());
    let mut child = command.stdin(Stdio::null()).stdout(slave()).stderr(slave()).spawn().unwrap();
    drop(command);
    drop(terminal.slave);
    let reader = tokio::task::spawn_blocking(move || {
        let (mut file, mut text, mut some) = (File::from(terminal.master), Vec::new(), [0; 4096]);
        // When the other end is closed, reading fails.
        while let Ok(length @ 1..) = file.read(&mut some) {
            text.extend_from_slice(&some[..length]);
        }
        String::from_utf8_lossy(&text).into_owned()
    });
    let ended = tokio::time::timeout(Duration::from_secs(60), child.wait()).await;
    assert!(ended.is_ok(), "{args:?} does not end");
    reader.await.unwrap()
}

/// What stays on the screen: the lines, without what moves the cursor.
fn lines(text: &str) -> Vec<String> {
    let last_of_each = text.split('\n').map(|line| line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default());
    last_of_each.map(without_escapes).filter(|line| !line.trim().is_empty()).collect()
}

fn without_escapes(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        if next == '\u{1b}' {
            // To the letter that ends it.
            let _ = rest.by_ref().find(char::is_ascii_alphabetic);
        } else {
            kept.push(next);
        }
    }
    kept
}

fn has_colours(text: &str) -> bool {
    text.split('\u{1b}').skip(1).any(|piece| {
        let code: String = piece.chars().take_while(|c| !c.is_ascii_alphabetic()).collect();
        piece[code.len()..].starts_with('m')
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_shows_rate_and_remaining_time() {
    let mut site = Site::new(Engine::Sqlite, [shop(1001, 0, 12), shop(1002, 0, 12), shop(1003, 0, 12)]).await;
    site.set("RECONCILE__PAGE_SIZE", "3");
    site.set("RECONCILE__CONCURRENCY", "1");
    for store in 1001..=1003 {
        site.salla.world().always.insert(store, Fault::Hang(Duration::from_millis(300)));
    }
    let all = shown(&site, &["run"], 100, &[]).await;
    for part in ["1/3 merchants", "12 corrected", "/min", "second left", "seconds so far"] {
        assert!(
            all.contains(part) || part.starts_with("second") && all.contains(&part.replace("second ", "seconds ")),
            "no {part} in {all}"
        );
    }
    let left = lines(&all);
    assert!(left.iter().all(|line| !line.contains("merchants ·")), "the bar is cleared away: {left:?}");
    assert!(left.iter().any(|line| line.contains("succeeded")), "{left:?}");
    let one = shown(&site, &["run", "--merchant", "1001", "--full"], 100, &[]).await;
    assert!(one.contains("page 2/4") && one.contains("left"), "{one}");
    // Without a terminal, the program shows no progress.
    let output = site.run(&["run"]).await.exits(0);
    assert!(!output.stdout.contains("/min") && !output.stderr.contains("/min"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_are_for_terminals_only() {
    let mut site = Site::new(Engine::Sqlite, [shop(1001, 0, 1)]).await;
    site.set("RECONCILE__PAGE_SIZE", "60");
    let failing = || site.salla.world().script(1001, [Fault::status(400)]);
    failing();
    assert!(has_colours(&shown(&site, &["run"], 100, &[]).await), "a warning");
    assert!(has_colours(&shown(&site, &["--help"], 100, &[]).await), "the help");
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        failing();
        let text = shown(&site, &["run"], 100, &[(name, value)]).await;
        assert!(!has_colours(&text) && text.contains("failed"), "{name}: {text:?}");
        let help = shown(&site, &["--help"], 100, &[(name, value)]).await;
        assert!(!has_colours(&help) && help.contains("Usage"), "{name}: {help:?}");
    }
    failing();
    let output = site.run(&["run"]).await.exits(1);
    assert!(!has_colours(&output.stdout) && !has_colours(&output.stderr), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_fit_the_terminal() {
    let site = Site::new(Engine::Sqlite, [shop(1001, 0, 3), shop(1002, 2, 1)]).await;
    site.run(&["run"]).await.exits(0);
    let name = "متجر في مدينة كبيرة ".repeat(8);
    site.database.execute("UPDATE merchants SET name = $1 WHERE merchant_id = 1002", [name.trim().into()]).await;
    for args in [&["merchants", "list"][..], &["report"], &["migrate", "status"], &["run"]] {
        for columns in [48_u16, 80, 200] {
            let text = shown(&site, args, columns, &[("NO_COLOR", "1")]).await;
            // Above it are log lines, and what stands below it may be longer: a terminal breaks those where it likes.
            let table =
                lines(&text).into_iter().skip_while(|line| !["mer", "mig"].iter().any(|head| line.starts_with(head)));
            let table: Vec<String> = table.take_while(|line| !line.contains(": ")).collect();
            let width = table.iter().map(|line| line.chars().count()).max();
            assert!(table.len() > 2 && width <= Some(columns.into()), "{args:?} at {columns}: {width:?}\n{text}");
        }
    }
    // A program that reads has each row on one line.
    let whole = site.run(&["merchants", "list"]).await.exits(0).stdout;
    assert!(whole.lines().any(|line| line.contains(name.trim())), "{whole}");
}

/// A person at a terminal is asked before everything is removed.
#[tokio::test(flavor = "multi_thread")]
async fn migrate_down_asks_first() {
    let site = Site::new(Engine::Sqlite, [shop(1001, 0, 1)]).await;
    for (answer, left) in [("no", 1), ("yes", 0)] {
        let terminal = openpty(None, None).unwrap();
        let slave = || Stdio::from(terminal.slave.try_clone().unwrap());
        let mut command = site.command(&["migrate", "down"]);
        let mut child = command.stdin(slave()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut master = File::from(terminal.master.try_clone().unwrap());
        std::io::Write::write_all(&mut master, format!("{answer}\n").as_bytes()).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(60), child.wait()).await.unwrap().unwrap();
        assert_eq!(ended.success(), answer == "yes");
        let tables = "SELECT count(*) FROM sqlite_master WHERE name = 'orders'";
        assert_eq!(site.database.number(tables).await, left, "{answer}");
    }
}
