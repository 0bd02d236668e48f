//! Changes of the inventory.

use serde_json::{Map, Value, json};

use super::{ID, changes, count, flag, get, list, object, of, or_null, path, problem, query, text, words};
use crate::inventory::TEXT_LIMIT_BYTES;

fn id() -> Value {
    json!({ "type": "string", "pattern": ID })
}

fn name() -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": TEXT_LIMIT_BYTES })
}

/// What the answers are made of.
pub(super) fn schemas() -> Map<String, Value> {
    let mut all = Map::new();
    all.insert("BranchPlace".to_owned(), object([("id", text()), ("name", text()), ("region", text())]));
    all.insert("RegionPlace".to_owned(), object([("id", text()), ("name", text())]));
    let error = object([("line", count()), ("column", text()), ("message", text())]);
    let compared = object([
        ("dry_run", flag()),
        ("applied", flag()),
        ("rows", count()),
        ("added", list(text())),
        ("changed", list(text())),
        ("removed", list(text())),
        ("errors", list(error)),
        ("total_errors", count()),
    ]);
    all.insert("Imported".to_owned(), compared);
    all
}

/// An object of some of these fields.
fn some_of(fields: &[(&str, Value)], required: &[&str]) -> Value {
    let fields: Map<String, Value> = fields.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({ "type": "object", "properties": fields, "required": required, "additionalProperties": false })
}

/// The other paths with the changes that they take, and those of files.
pub(super) fn join(mut paths: Value) -> Value {
    let device = [("id", id()), ("name", name()), ("branch", id()), ("device_type", id()), ("ip", text())];
    let branch = [("id", id()), ("name", name()), ("region", id())];
    let region = [("id", id()), ("name", name())];
    let things = [
        ("/api/v1/devices", "device", "Device", device.as_slice()),
        ("/api/v1/branches", "branch", "BranchPlace", &branch),
        ("/api/v1/regions", "region", "RegionPlace", &region),
    ];
    for (route, what, answer, fields) in things {
        let all: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
        let add = changes("post", &format!("Adds a {what}"), vec![], "201", Some((some_of(fields, &all), of(answer))));
        paths[route]["post"] = add["post"].clone();
        let one = format!("{route}/{{id}}");
        // null is as good as nothing said.
        let nullable: Vec<(&str, Value)> = fields.iter().map(|(name, schema)| (*name, or_null(schema.clone()))).collect();
        let set = (some_of(&nullable, &[]), of(answer));
        let change = changes("patch", &format!("Changes a {what}; its id stays"), vec![path("id")], "200", Some(set));
        paths[&one]["patch"] = change["patch"].clone();
        let remove = changes("delete", &format!("Removes a {what}"), vec![path("id")], "204", None);
        paths[&one]["delete"] = remove["delete"].clone();
    }
    let csv = json!({ "text/csv": { "schema": { "type": "string" } } });
    let mut export = get("The inventory as CSV", vec![], json!({}));
    export["get"]["responses"]["200"] = json!({ "description": "The file", "content": csv });
    export["get"]["responses"].as_object_mut().into_iter().for_each(|answers| {
        answers.remove("304");
    });
    paths["/api/v1/inventory.csv"] = export;
    let flags = vec![
        query(
            "dry_run",
            json!({ "type": "string", "enum": ["true", "false"], "default": "true" }),
            "Only says what it would change",
        ),
        query("remove", words(&["true", "false"]), "Devices that the file doesn't name go; else they stay"),
    ];
    let mut import =
        changes("post", "Takes a CSV over, or says what it would change", flags, "200", Some((json!({}), of("Imported"))));
    import["post"]["requestBody"] = json!({ "required": true, "content": csv });
    import["post"]["responses"]["422"] = json!({
        "description": "Nothing was applied: the file has mistakes",
        "content": { "application/json": { "schema": of("Imported") } },
    });
    import["post"]["responses"]["400"] = problem("A parameter is unknown or wrong");
    paths["/api/v1/inventory/import"] = import;
    paths
}
