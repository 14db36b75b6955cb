//! `docs/reference/cli.md`, from `--help` of each command.

use std::fmt::Write as _;

use super::assert_current;
use crate::support::{Engine, Site};

const HEAD: &str = "# Commands\n\nGenerated from `salla-reconciler --help` and the help of each command.\n";

#[tokio::test]
async fn the_page_of_commands_is_current() {
    let site = Site::unregistered(Engine::Sqlite, []).await;
    let mut text = HEAD.to_owned();
    let mut pending = vec![Vec::new()];
    while let Some(command) = pending.pop() {
        let mut arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        let name = [&["salla-reconciler"][..], &arguments].concat().join(" ");
        arguments.push("--help");
        let help = site.run(&arguments).await.exits(0).stdout;
        let _ = write!(text, "\n## {name}\n\n```text\n{}\n```\n", without_date(help.trim_end()));
        let commands = subcommands(&help);
        pending.extend(commands.into_iter().rev().map(|one| [command.clone(), vec![one]].concat()));
    }
    assert!(text.contains("## salla-reconciler migrate grants\n"), "{text}");
    assert_current("cli.md", &text);
}

/// The names in the section `Commands:` of a help text.
fn subcommands(help: &str) -> Vec<String> {
    let section = help.split_once("\nCommands:\n").map_or("", |(_, section)| section);
    section
        .lines()
        .take_while(|line| !line.is_empty())
        // Other lines continue a description.
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

/// The default id of a key is the date.
fn without_date(help: &str) -> String {
    match help.split_once("[default: k2") {
        Some((before, after)) => format!("{before}[default: kYYYYMMDD{}", &after[after.find(']').unwrap()..]),
        None => help.to_owned(),
    }
}
