//! `docs/reference/api.md`, from the OpenAPI document.

use std::fmt::Write as _;

use serde_json::Value;

use super::{assert_current, cell};
use crate::support::{Engine, Site};

const HEAD: &str = "# API\n\nGenerated from the document that `salla-reconciler openapi` and `GET /openapi.json` show (OpenAPI 3.1).\n";

#[tokio::test]
async fn the_page_of_the_api_is_current() {
    let site = Site::unregistered(Engine::Sqlite, []).await;
    let document: Value = serde_json::from_str(&site.run(&["openapi"]).await.exits(0).stdout).unwrap();
    assert_current("api.md", &reference(&document));
}

fn reference(document: &Value) -> String {
    let mut text = format!("{HEAD}\n{}\n", document["info"]["description"].as_str().unwrap());
    let token = document["components"]["securitySchemes"]["token"]["description"].as_str().unwrap();
    let _ = write!(text, "\n**Bearer token.** {token}\n");
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let _ = write!(text, "\n## {} {path}\n\n", method.to_uppercase());
            operation_of(operation, &mut text);
        }
    }
    text.push_str("\n## Schemas\n");
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        let _ = write!(text, "\n### {name}\n\n");
        schema_of(schema, &mut text);
    }
    text
}

fn operation_of(operation: &Value, text: &mut String) {
    for key in ["summary", "description"] {
        if let Some(words) = operation[key].as_str() {
            let _ = write!(text, "{words}\n\n");
        }
    }
    text.push_str(if operation["security"].is_array() { "With a bearer token.\n" } else { "Open to all.\n" });
    let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !parameters.is_empty() {
        text.push_str("\n| parameter | in | type | |\n|---|---|---|---|\n");
    }
    for parameter in parameters {
        let must = if parameter["required"] == true { "Required. " } else { "" };
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {must}{} |",
            parameter["name"].as_str().unwrap(),
            parameter["in"].as_str().unwrap(),
            kind(&parameter["schema"]),
            words(&parameter["description"])
        );
    }
    for (media, body) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
        let _ = write!(text, "\nBody: {} as `{media}`.\n", kind(&body["schema"]));
    }
    text.push_str("\n| answer | | |\n|---|---|---|\n");
    let responses = operation["responses"].as_object().unwrap();
    for (status, response) in responses {
        let body = response["content"].as_object().and_then(|content| content.values().next());
        let body = body.map(|body| kind(&body["schema"])).unwrap_or_default();
        let _ = writeln!(text, "| {status} | {} | {body} |", words(&response["description"]));
    }
    let good = responses.iter().filter(|(status, _)| status.starts_with('2'));
    let examples = good.filter_map(|(_, response)| response["content"]["application/json"].get("example"));
    if let Some(example) = examples.take(1).next() {
        let _ = write!(text, "\n```json\n{}\n```\n", serde_json::to_string_pretty(example).unwrap());
    }
}

fn schema_of(schema: &Value, text: &mut String) {
    if let Some(description) = schema["description"].as_str() {
        let _ = write!(text, "{description}\n\n");
    }
    if let Some(parts) = schema["allOf"].as_array() {
        let named = parts.iter().filter(|part| part["$ref"].is_string()).map(kind);
        let _ = write!(text, "All of {}, and:\n\n", named.collect::<Vec<_>>().join(", "));
    }
    let parts = schema["allOf"].as_array().map_or_else(|| vec![schema], |parts| parts.iter().collect());
    let properties: Vec<_> = parts.iter().filter_map(|part| part["properties"].as_object()).flatten().collect();
    if properties.is_empty() {
        let _ = writeln!(text, "{}", kind(schema));
        return;
    }
    text.push_str("| member | type | |\n|---|---|---|\n");
    for (name, property) in properties {
        let inner = property["oneOf"].as_array().and_then(|kinds| kinds.first());
        let description = property.get("description").or_else(|| inner?.get("description")).unwrap_or(&Value::Null);
        let _ = writeln!(text, "| `{name}` | {} | {} |", kind(property), words(description));
    }
}

/// A type, in a word or a few.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|place| place.rsplit('/').next()) {
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if let Some(kinds) = schema["oneOf"].as_array() {
        return kinds.iter().map(kind).collect::<Vec<_>>().join(" or ");
    }
    if let Some(words) = schema["enum"].as_array() {
        return words.iter().map(|word| format!("`{}`", word.as_str().unwrap())).collect::<Vec<_>>().join(", ");
    }
    let name = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        name => name.as_str().unwrap_or("any").to_owned(),
    };
    let name = match schema["format"].as_str() {
        Some(format @ ("uuid" | "date-time")) => name.replace("string", format),
        _ => name,
    };
    match schema.get("items") {
        Some(items) => format!("{name} of {}", kind(items)),
        None => name,
    }
}

/// A description in one cell.
fn words(description: &Value) -> String {
    cell(description.as_str().unwrap_or_default())
}
