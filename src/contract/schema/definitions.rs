//! Repeated parts of a schema become definitions: each field has two spellings, and lists of countries are long.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

/// Shorter parts stay where they are, in characters of JSON.
const MIN_LENGTH: usize = 250;

/// Moves the repeated parts of a schema to its `$defs`. `place` is the JSON pointer of the schema in its document.
pub(super) fn with_definitions(schema: Value, place: &str) -> Value {
    let mut definitions =
        Definitions { place, counts: HashMap::new(), names: HashMap::new(), all: Map::new() };
    definitions.count(&schema);
    let mut schema = definitions.children(schema, "schema", 1);
    if !definitions.all.is_empty() {
        schema["$defs"] = definitions.all.into();
    }
    schema
}

struct Definitions<'a> {
    place: &'a str,
    /// How often each part is there, by its JSON.
    counts: HashMap<String, usize>,
    /// The names of the definitions, by their JSON.
    names: HashMap<String, String>,
    all: Map<String, Value>,
}

impl Definitions<'_> {
    fn count(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                *self.counts.entry(value.to_string()).or_default() += 1;
                fields.values().for_each(|value| self.count(value));
            }
            Value::Array(values) => values.iter().for_each(|value| self.count(value)),
            _ => {}
        }
    }

    /// Replaces a part by a reference if it is there more often than the definition that it is part of. `field` is the field
    /// that it describes.
    fn replaced(&mut self, value: Value, field: &str, outer: usize) -> Value {
        let json = value.to_string();
        let count = self.counts.get(&json).copied().unwrap_or_default();
        if !value.is_object() || count <= outer || json.len() < MIN_LENGTH {
            return self.children(value, field, outer);
        }
        let name = match self.names.get(&json) {
            Some(name) => name.clone(),
            None => {
                let name = self.free_name(field);
                self.names.insert(json, name.clone());
                self.all.insert(name.clone(), Value::Null);
                let definition = self.children(value, field, count);
                self.all.insert(name.clone(), definition);
                name
            }
        };
        json!({"$ref": format!("{}/$defs/{name}", self.place)})
    }

    fn children(&mut self, value: Value, field: &str, outer: usize) -> Value {
        match value {
            Value::Object(fields) => {
                let replaced = fields.into_iter().map(|(key, value)| {
                    // The keys of `properties` are fields and not words of JSON Schema.
                    let value = match (key.as_str(), value) {
                        ("properties", Value::Object(properties)) => properties
                            .into_iter()
                            .map(|(name, schema)| {
                                let schema = self.replaced(schema, &snake_case(&name), outer);
                                (name, schema)
                            })
                            .collect::<Map<_, _>>()
                            .into(),
                        (_, value) => self.replaced(value, field, outer),
                    };
                    (key, value)
                });
                Value::Object(replaced.collect())
            }
            Value::Array(values) => {
                values.into_iter().map(|value| self.replaced(value, field, outer)).collect::<Vec<_>>().into()
            }
            value => value,
        }
    }

    fn free_name(&self, field: &str) -> String {
        let names =
            (1..).map(|number| if number == 1 { field.to_owned() } else { format!("{field}_{number}") });
        names.into_iter().find(|name| !self.all.contains_key(name)).unwrap_or_default()
    }
}

/// Returns the `snake_case` of a lowerCamelCase name.
fn snake_case(name: &str) -> String {
    name.chars().fold(String::with_capacity(name.len() + 4), |mut snake, letter| {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
        snake
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_repeated_is_defined_once_and_what_is_short_stays() {
        let long = json!({"enum": vec!["a name that is in a list"; 20]});
        let object = json!({"properties": {"country": long, "zip": {"type": "string"}}});
        let schema = json!({"properties": {"homeAddress": object, "home_address": object, "country": long}});
        let place = with_definitions(schema, "#");
        assert_eq!(place["properties"]["homeAddress"], json!({"$ref": "#/$defs/home_address"}));
        assert_eq!(place["properties"]["home_address"], place["properties"]["homeAddress"]);
        assert_eq!(
            place["$defs"]["home_address"]["properties"]["country"],
            json!({"$ref": "#/$defs/country"})
        );
        assert_eq!(place["$defs"]["country"], long);
        assert_eq!(place["$defs"]["home_address"]["properties"]["zip"], json!({"type": "string"}));
        assert_eq!(place["$defs"].as_object().unwrap().len(), 2);
    }
}
