//! The dependency picture as a table, and the check that the manifests draw no other edge.
//!
//! Data moves one way. An edge counts whatever its section: normal, build, or behind a feature or target; only a
//! dev-dependency has a column of its own.

use serde_json::Value;

use super::Violation;

/// What a package of ours may depend on.
struct Row {
    package: &'static str,
    uses: &'static [&'static str],
    /// In tests, beside `uses`.
    tests: &'static [&'static str],
}

const PICTURE: &[Row] = &[
    Row { package: "kiln-ir", uses: &[], tests: &[] },
    Row { package: "kiln-shaders", uses: &[], tests: &[] },
    Row { package: "kiln-derive", uses: &[], tests: &[] },
    Row { package: "kiln-cpu", uses: &["kiln-ir"], tests: &[] },
    Row { package: "kiln-device", uses: &["kiln-ir", "kiln-shaders"], tests: &[] },
    Row { package: "kiln-graph", uses: &["kiln-ir"], tests: &["kiln-cpu"] },
    Row { package: "kiln-nn", uses: &["kiln-graph", "kiln-ir", "kiln-derive"], tests: &["kiln-cpu"] },
    Row { package: "kiln-data", uses: &["kiln-ir", "kiln-graph"], tests: &["kiln-cpu"] },
    Row { package: "kiln-train", uses: &["kiln-ir"], tests: &[] },
];

/// The facade uses every row of the picture.
const FACADE: &str = "kiln";

/// Top folders of unpublished members, which may use anything; nothing in the picture uses them.
const FREE: &[&str] = &["benches", "examples", "xtask"];

/// Every edge between members that the picture lacks. `metadata` is what `cargo metadata --no-deps` prints; `read`
/// gives the text of a manifest by its path relative to the root.
pub(super) fn check(metadata: &str, read: impl Fn(&str) -> String) -> Result<Vec<Violation>, String> {
    let metadata: Value = serde_json::from_str(metadata).map_err(|error| format!("cargo metadata: {error}"))?;
    let root = text(&metadata, "workspace_root")?;
    let packages = list(&metadata, "packages")?;
    let members = packages.iter().map(|package| text(package, "name")).collect::<Result<Vec<_>, _>>()?;

    let mut found = Vec::new();
    for package in packages {
        let name = text(package, "name")?;
        let path = text(package, "manifest_path")?;
        let file = path.strip_prefix(root).unwrap_or(path).replace('\\', "/").trim_start_matches('/').to_owned();
        if FREE.iter().any(|folder| file.starts_with(&format!("{folder}/"))) {
            continue;
        }
        if name != FACADE && row(name).is_none() {
            let rule = format!("{name} is not in the picture; give it a row in xtask's table");
            found.push(Violation { file, line: 1, rule });
            continue;
        }
        for dependency in list(package, "dependencies")? {
            let to = text(dependency, "name")?;
            // Absent, the kind is that of a normal dependency.
            let kind = dependency["kind"].as_str();
            let ours = members.contains(&to) || to == FACADE || to.starts_with("kiln-");
            if !ours || allowed(name, to, kind == Some("dev")) {
                continue;
            }
            let section = kind.map_or_else(|| "dependencies".to_owned(), |kind| format!("{kind}-dependencies"));
            let line = line_of(&read(&file), &section, dependency["rename"].as_str().unwrap_or(to));
            found.push(Violation { file: file.clone(), line, rule: format!("{section}: no edge {name} -> {to}") });
        }
    }
    Ok(found)
}

fn row(package: &str) -> Option<&'static Row> {
    PICTURE.iter().find(|row| row.package == package)
}

fn allowed(from: &str, to: &str, dev: bool) -> bool {
    if from == FACADE {
        return row(to).is_some();
    }
    row(from).is_some_and(|row| row.uses.contains(&to) || dev && row.tests.contains(&to))
}

/// The line, from 1, that names `key` in `section` of a manifest; 1 if it is written in some way we do not know.
fn line_of(manifest: &str, section: &str, key: &str) -> usize {
    let mut inside = false;
    for (at, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            // `dependencies`, `dependencies.key`, `target.'…'.dependencies`, `target.'…'.dependencies.key`
            let parts: Vec<&str> = header.trim_end_matches(']').split('.').collect();
            inside = parts.contains(&section);
            if inside && parts.last() == Some(&key) {
                return at + 1;
            }
        } else if inside && line.strip_prefix(key).is_some_and(|rest| rest.starts_with(['.', ' ', '='])) {
            return at + 1;
        }
    }
    1
}

fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str, String> {
    value[field].as_str().ok_or_else(|| format!("cargo metadata: no `{field}`"))
}

fn list<'a>(value: &'a Value, field: &str) -> Result<&'a [Value], String> {
    value[field].as_array().map(Vec::as_slice).ok_or_else(|| format!("cargo metadata: no `{field}`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What `check` prints for one package in `folder` with dependencies (name, kind).
    fn edges(folder: &str, package: &str, dependencies: &[(&str, Option<&str>)]) -> Vec<String> {
        let dependencies: Vec<Value> =
            dependencies.iter().map(|(name, kind)| json!({"name": name, "kind": kind, "rename": null})).collect();
        let manifest_path = format!("/repo/{folder}/Cargo.toml");
        let packages = json!([{"name": package, "manifest_path": manifest_path, "dependencies": dependencies}]);
        let metadata = json!({"workspace_root": "/repo", "packages": packages});
        let manifest = "[package]\n[dependencies]\nkiln-cpu.workspace = true\n[dev-dependencies]\nkiln-cpu = \"1\"\n";
        let found = check(&metadata.to_string(), |_| manifest.to_owned()).unwrap();
        found.iter().map(Violation::to_string).collect()
    }

    #[test]
    fn edges_of_the_picture_pass() {
        for row in PICTURE {
            let uses: Vec<_> = row.uses.iter().map(|name| (*name, None)).collect();
            let tests: Vec<_> = row.tests.iter().map(|name| (*name, Some("dev"))).collect();
            assert!(edges("crates/x", row.package, &[uses, tests].concat()).is_empty());
            assert!(edges("crates/kiln", FACADE, &[(row.package, None)]).is_empty());
        }
        assert!(edges("crates/ir", "kiln-ir", &[("half", None), ("serde", Some("dev"))]).is_empty());
        for folder in FREE {
            assert!(edges(folder, "kiln-anything", &[("kiln", None), ("kiln-cpu", None)]).is_empty());
        }
    }

    #[test]
    fn other_edges_fail_with_file_and_line() {
        let found = edges("crates/graph", "kiln-graph", &[("kiln-ir", None), ("kiln-cpu", None)]);
        assert_eq!(found, ["crates/graph/Cargo.toml:3: dependencies: no edge kiln-graph -> kiln-cpu"]);
        let found = edges("crates/ir", "kiln-ir", &[("kiln-cpu", Some("dev"))]);
        assert_eq!(found, ["crates/ir/Cargo.toml:5: dev-dependencies: no edge kiln-ir -> kiln-cpu"]);
        for (from, to) in
            [("kiln-cpu", "kiln-graph"), ("kiln-nn", "kiln-device"), ("kiln-train", "kiln"), ("kiln", "x")]
        {
            let n_found = edges("crates/x", from, &[(to, Some("build"))]).len();
            assert_eq!(n_found, usize::from(to != "x"), "{from} -> {to}");
        }
        assert_eq!(edges("crates/kiln", FACADE, &[("kiln-benches", None)]).len(), 1);
    }

    #[test]
    fn a_package_without_a_row_fails() {
        assert_eq!(edges("crates/onnx", "kiln-onnx", &[]).len(), 1);
    }

    /// A row uses only rows above it, so the picture has no cycle.
    #[test]
    fn the_picture_moves_one_way() {
        for (at, row) in PICTURE.iter().enumerate() {
            let above = |name: &&str| PICTURE[..at].iter().any(|other| other.package == *name);
            assert!(row.uses.iter().chain(row.tests).all(above), "{}", row.package);
        }
    }

    #[test]
    fn lines_are_found_in_each_way_to_write_them() {
        let manifest = "[dependencies]\na-b = \"1\"\na = { path = \"a\" }\n[target.'cfg(unix)'.dependencies.c]\n[build-dependencies]\nd=\"1\"\n";
        assert_eq!(line_of(manifest, "dependencies", "a"), 3);
        assert_eq!(line_of(manifest, "dependencies", "c"), 4);
        assert_eq!(line_of(manifest, "build-dependencies", "d"), 6);
        assert_eq!(line_of(manifest, "dev-dependencies", "a"), 1);
    }
}
