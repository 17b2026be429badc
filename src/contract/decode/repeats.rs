//! Finds fields that are given twice, in one spelling or in both.

use super::json::{self, Json};

/// Returns whether an object of the text has a field twice; `None` if the text is not JSON.
pub(in crate::contract) fn repeats_a_field(text: &str) -> Option<bool> {
    json::parse(text).ok().map(|json| repeats(&json))
}

fn repeats(json: &Json<'_>) -> bool {
    let Json::Object(fields) = json else { return false };
    let mut names: Vec<String> = fields.iter().map(|(name, _)| snake_case(name)).collect();
    names.sort_unstable();
    names.windows(2).any(|pair| pair[0] == pair[1]) || fields.iter().any(|(_, value)| repeats(value))
}

/// Returns a name in `snake_case`. lowerCamelCase is the other spelling of a field (proto3 JSON mapping).
pub(in crate::contract) fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}
