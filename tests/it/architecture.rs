//! The rings, read from the `use` lines, and the size of files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Which modules a module may use. Dependencies point inward only.
const MAY_USE: [(&str, &[&str]); 19] = [
    ("failpoint", &[]),
    ("error_text", &[]),
    ("json_object", &[]),
    ("response_headers", &[]),
    ("ttl_map", &[]),
    ("domain", &[]),
    ("reconcile", &["domain"]),
    ("salla", &["domain", "error_text", "json_object", "reconcile", "response_headers", "ttl_map"]),
    ("store", &["domain", "reconcile"]),
    ("vault", &["domain", "error_text", "json_object", "reconcile", "ttl_map"]),
    ("http", &["domain", "json_object", "reconcile"]),
    ("dashboard", &["domain", "http", "reconcile"]),
    ("outbox", &["domain", "error_text", "reconcile", "response_headers"]),
    ("schedule", &["domain", "reconcile"]),
    ("telemetry", &["domain", "reconcile"]),
    ("simulator", &[]),
    ("config", &["domain", "http", "outbox", "reconcile", "salla", "schedule", "store", "telemetry", "vault"]),
    (
        "app",
        &[
            "config",
            "dashboard",
            "domain",
            "http",
            "outbox",
            "reconcile",
            "salla",
            "schedule",
            "store",
            "telemetry",
            "vault",
        ],
    ),
    (
        "cli",
        &[
            "app",
            "config",
            "domain",
            "error_text",
            "json_object",
            "reconcile",
            "salla",
            "schedule",
            "simulator",
            "store",
            "telemetry",
            "vault",
        ],
    ),
];

/// A group of a module, and the groups that it may use.
type Group = (&'static str, &'static [&'static str]);

/// Which groups of a module a group of it may use. Every group may use the items beside the groups, such as
/// `store::Store`.
const GROUPS_MAY_USE: [(&str, &[Group]); 3] = [
    (
        "store",
        &[
            ("connection", &[]),
            ("entity", &["connection"]),
            ("records", &["connection", "entity"]),
            ("limits", &["connection"]),
            ("events", &["connection", "entity", "records"]),
            ("merchants", &["connection", "entity", "events", "limits", "records"]),
            ("runs", &["connection", "entity", "events", "merchants", "records"]),
            ("reports", &["connection", "entity", "events", "merchants", "records", "runs"]),
        ],
    ),
    (
        "salla",
        &[
            ("wire", &[]),
            ("resources", &["wire"]),
            ("auth", &["wire"]),
            ("http", &["auth", "resources", "wire"]),
            ("listing", &["http", "resources", "wire"]),
            ("probe", &["http", "resources", "wire"]),
        ],
    ),
    (
        "reconcile",
        &[
            ("walk", &[]),
            ("ports", &["walk"]),
            ("metrics", &["ports"]),
            ("sorted", &["walk"]),
            ("engine", &["ports", "sorted", "walk"]),
            ("run", &["engine", "metrics", "ports"]),
        ],
    ),
];

/// The names that a module must not contain in any way.
const FORBIDDEN: [(&str, &[&str]); 3] = [
    ("domain", &["tokio", "sea_orm", "reqwest", "axum", "utoipa", "Utc::now"]),
    ("reconcile", &["sea_orm", "reqwest", "axum", "Utc::now"]),
    ("simulator", &["sea_orm"]),
];

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .unwrap()
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() { files(&path) } else { vec![path] }
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// The code without its tests and comments.
fn production(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The module that a file belongs to.
fn module(path: &Path) -> String {
    let inside = path.strip_prefix(source()).unwrap();
    inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// The modules that code names by `crate::…`, whether as a path or in a group.
fn used(code: &str) -> Vec<String> {
    code.match_indices("crate::").flat_map(|(at, path)| heads(&code[at + path.len()..])).collect()
}

/// The parts of a module that code names by `crate::module::…`, in the same ways.
fn used_of(code: &str, module: &str) -> Vec<String> {
    let path = format!("{module}::");
    let after = |(at, _)| {
        let before: &str = &code[..at];
        // As a separate path, or in a group that begins with `crate::{`.
        let is_named = before.ends_with("crate::") || before.ends_with([' ', '{', '\n']);
        if is_named { heads(&code[at + path.len()..]) } else { Vec::new() }
    };
    code.match_indices(&path).flat_map(after).collect()
}

/// The first names of what follows a `::`: of one path, or of all in a group.
fn heads(rest: &str) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(group) = rest.strip_prefix('{') {
        let mut depth = 0;
        for part in group.split_inclusive(['{', '}', ',']) {
            if depth == 0 {
                found.push(
                    part.trim_matches([' ', '\n', ',', '{', '}']).split("::").next().unwrap_or_default().to_owned(),
                );
            }
            depth += i32::from(part.ends_with('{')) - i32::from(part.ends_with('}'));
            if depth < 0 {
                break;
            }
        }
    } else {
        found.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
    }
    found.retain(|name| !name.is_empty());
    found
}

#[test]
fn dependencies_point_inward() {
    let mut checked = 0;
    for path in files(&source()) {
        let (module, code) = (module(&path), production(&path));
        if module == "main" || module == "lib" {
            continue;
        }
        let allowed = MAY_USE
            .iter()
            .find(|(name, _)| *name == module)
            .unwrap_or_else(|| panic!("{module} has no place in the rings"))
            .1;
        for name in used(&code) {
            checked += 1;
            // The readers of durations and parsed texts, which every section of the configuration needs.
            let reader = name == "config"
                && code.matches("crate::config::").count()
                    == code.matches("deserialize_with = \"crate::config::").count();
            assert!(
                name == module || allowed.contains(&name.as_str()) || reader,
                "{}: {module} may use {allowed:?}, and uses {name}",
                path.display()
            );
        }
    }
    assert!(checked > 50, "the test reads too little: {checked}");
}

#[test]
fn groups_import_one_way() {
    let mut checked = 0;
    for (module, groups) in GROUPS_MAY_USE {
        for (group, allowed) in groups {
            for path in files(&source().join(module).join(group)) {
                let names = used_of(&production(&path), module);
                for name in names.iter().filter(|name| groups.iter().any(|(group, _)| group == name)) {
                    checked += 1;
                    assert!(
                        name == group || allowed.contains(&name.as_str()),
                        "{}: {module}::{group} may use {allowed:?}, and uses {name}",
                        path.display()
                    );
                }
            }
        }
    }
    assert!(checked > 50, "the test reads too little: {checked}");
}

/// The names of the methods that code defines.
fn methods(code: &str) -> Vec<&str> {
    let method = |(at, _)| {
        let (name, rest) = code[at + 3..].split_once('(')?;
        let takes_self = ["&self", "&mut self", "self"].iter().any(|own| rest.trim_start().starts_with(own));
        takes_self.then(|| name.split('<').next().unwrap_or(name))
    };
    code.match_indices("fn ").filter_map(method).collect()
}

/// The names of the methods that code calls on `self`.
fn called(code: &str) -> Vec<&str> {
    let name = |rest: &'_ str| rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    code.match_indices("self.").map(|(at, _)| &code[at + 5..]).map(|rest| &rest[..name(rest)]).collect()
}

/// `Store` has methods in each group of `store`. A call of such a method is a use of its group.
#[test]
fn groups_of_the_store_call_one_way() {
    let groups = GROUPS_MAY_USE.iter().find(|(module, _)| *module == "store").unwrap().1;
    let code_of = |group: &str| -> Vec<String> {
        files(&source().join("store").join(group)).iter().map(|path| production(path)).collect()
    };
    let mut owners: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (group, _) in groups {
        for code in code_of(group) {
            for method in methods(&code) {
                owners.entry(method.to_owned()).or_default().insert(group);
            }
        }
    }
    let mut checked = 0;
    for (group, allowed) in groups {
        for code in code_of(group) {
            for (method, owners) in called(&code).into_iter().filter_map(|method| owners.get_key_value(method)) {
                checked += 1;
                let is_allowed = |owner: &&str| owner == group || allowed.contains(owner);
                assert!(
                    owners.iter().any(is_allowed),
                    "store::{group} may use {allowed:?}, and calls {method} of {owners:?}"
                );
            }
        }
    }
    assert!(checked > 50, "the test reads too little: {checked}");
}

#[test]
fn inner_modules_use_no_outer_crates() {
    for path in files(&source()) {
        let (module, code) = (module(&path), production(&path));
        for (name, words) in FORBIDDEN {
            for word in words {
                assert!(name != module || !code.contains(word), "{}: {module} must not know {word}", path.display());
            }
        }
    }
}

#[test]
fn files_are_short() {
    let mut sizes: Vec<(usize, PathBuf)> =
        files(&source()).into_iter().map(|path| (production_lines(&path), path)).collect();
    sizes.sort();
    let median = sizes[sizes.len() / 2].0;
    assert!(median <= 120, "the median file has {median} lines");
    for (lines, path) in sizes {
        assert!(lines <= 300, "{}: {lines} lines", path.display());
    }
}

fn production_lines(path: &Path) -> usize {
    let inside = path.strip_prefix(source()).unwrap();
    if path.ends_with("tests.rs") || inside.iter().any(|folder| folder == "tests") {
        return 0;
    }
    let text = fs::read_to_string(path).unwrap();
    text.split("#[cfg(test)]").next().unwrap_or_default().lines().count()
}
