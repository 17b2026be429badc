//! JSON as it was written: fields in their order and as often as they stand there, numbers with all their digits.

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

pub(super) enum Json<'a> {
    Null,
    Bool(bool),
    /// Its text.
    Number(String),
    /// The message's own, save where it has escapes.
    Text(Cow<'a, str>),
    List,
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

/// The largest message that is decoded, in bytes.
pub(super) const MAX_BYTES: usize = 256 * 1024;
const MAX_LEVELS: usize = 32;

/// How `serde_json` shows a number that keeps its digits: as an object with this one key. An object of a sender's
/// with that very key is taken for a number, and refused where none belongs, or where its text is none.
const NUMBER: &str = "$serde_json::private::Number";

pub(super) fn parse(text: &str) -> Result<Json<'_>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let json = Level(MAX_LEVELS).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(json)
}

/// A value with so many levels left below it.
struct Level(usize);

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Level {
    fn below<E: Error>(&self) -> Result<usize, E> {
        self.0.checked_sub(1).ok_or_else(|| E::custom("nested deeper than 32 levels"))
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }

    // Numbers of 64 bits come as they are, all others by their text (see NUMBER).
    fn visit_u64<E>(self, number: u64) -> Result<Json<'de>, E> {
        Ok(Json::Number(number.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json<'de>, E> {
        Ok(Json::Number(number.to_string()))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(text.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(text.to_owned().into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json<'de>, A::Error> {
        let below = self.below()?;
        // No field is a list; it is read to its end so that what follows it is still JSON.
        while list.next_element_seed(Level(below))?.is_some() {}
        Ok(Json::List)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json<'de>, A::Error> {
        let mut fields = Vec::new();
        // A name is always text.
        while let Some(Json::Text(name)) = map.next_key_seed(Level(0))? {
            if name == NUMBER && fields.is_empty() {
                return map.next_value::<String>().map(Json::Number);
            }
            let below = self.below()?;
            fields.push((name, map.next_value_seed(Level(below))?));
        }
        Ok(Json::Object(fields))
    }
}
