//! `docs/reference/configuration.md`, from `config/default.toml`.

use std::{fmt::Write as _, fs, path::Path};

use super::assert_current;

const HEAD: &str = "# Configuration\n\nGenerated from `config/default.toml`, which is compiled into the program.\n\n\
    Sources, the later ones win:\n\n\
    1. the defaults on this page\n\
    2. `config/{SALLA_RECONCILER_ENV}.toml`\n\
    3. the file of `--config`\n\
    4. environment variables `SALLA_RECONCILER__SECTION__KEY`\n\n\
    Durations are written `30s`, `5m`, `24h`, `90d`. An empty text means: not set. An unknown key, and an unknown variable that\n\
    begins with `SALLA_RECONCILER`, are errors. Errors never quote values. `RUST_LOG` filters the log, except the audit.\n";

#[test]
fn the_page_of_settings_is_current() {
    let defaults = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/default.toml")).unwrap();
    let (mut text, mut section, mut comment) = (HEAD.to_owned(), "", Vec::new());
    for line in defaults.lines().skip_while(|line| !line.starts_with('[')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
            let _ = write!(text, "\n## {section}\n");
        } else if let Some(words) = line.strip_prefix('#') {
            comment.push(words.strip_prefix(' ').unwrap_or(words));
        } else if let Some((key, value)) = line.split_once(" = ") {
            let default = if value == "\"\"" { "not set".to_owned() } else { format!("`{value}`") };
            let variable =
                format!("SALLA_RECONCILER__{}__{}", section.replace('.', "__").to_uppercase(), key.to_uppercase());
            let _ = write!(text, "\n### {section}.{key}\n\nDefault: {default} · `{variable}`\n\n{}\n", prose(&comment));
            comment.clear();
        }
    }
    assert!(text.contains("### telemetry.otlp_endpoint_file\n"), "{text}");
    assert_current("configuration.md", &text);
}

/// The lines of a comment. An indented line that begins with a word and two spaces is an item of a list.
fn prose(comment: &[&str]) -> String {
    let mut text = String::new();
    let mut is_list = false;
    for line in comment {
        let item = line.strip_prefix("  ").and_then(|item| item.split_once("  ")).filter(|(word, _)| !word.is_empty());
        match item {
            Some((word, meaning)) => {
                text += if is_list { "\n" } else { "\n\n" };
                let _ = write!(text, "- `{word}`: {}", meaning.trim_start());
                is_list = true;
            }
            None if is_list && line.starts_with("  ") => text = format!("{text} {}", line.trim_start()),
            None => {
                text += if text.is_empty() {
                    ""
                } else if is_list {
                    "\n\n"
                } else {
                    "\n"
                };
                text += line;
                is_list = false;
            }
        }
    }
    text
}
