//! Reading payloads back into the user's types.

use std::fmt;

use serde::Deserialize;
use serde::de::value::U32Deserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, IntoDeserializer, MapAccess, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::Payload;
use crate::error::DecodeError;

type Json<'t> = serde_json::Deserializer<serde_json::de::StrRead<'t>>;

/// Reads the variant with this index from its content, as [`encode_variant`](super::encode_variant) writes it.
///
/// The index counts the variants that serde can read, in the order of declaration, from 0.
///
/// The bound is spelled out because the compiler then names the missing derive; for `DeserializeOwned` it does
/// not.
///
/// # Errors
/// [`DecodeError::Payload`] if the content does not fit.
pub fn decode_variant<T: for<'de> Deserialize<'de>>(index: u32, payload: &Payload) -> Result<T, DecodeError> {
    let mut json = serde_json::Deserializer::from_str(payload.as_str());
    T::deserialize(VariantContent { index, json: &mut json })
        .and_then(|value| json.end().map(|()| value))
        .map_err(|error| unfit(without_values(error)))
}

/// Reads a struct; the bound is spelled out as at [`decode_variant`].
///
/// # Errors
/// [`DecodeError::Payload`] if the content does not fit.
pub fn decode_struct<T: for<'de> Deserialize<'de>>(payload: &Payload) -> Result<T, DecodeError> {
    payload.read().map_err(unfit)
}

/// The error of a payload that does not fit.
fn unfit(source: serde_json::Error) -> DecodeError {
    DecodeError::Payload { source }
}

/// The error of a value that does not fit. Logs show it, so what serde quotes of the values is taken out of its text; what the
/// `Deserialize` of the type itself says is left.
#[must_use]
pub fn without_values(error: serde_json::Error) -> serde_json::Error {
    match without_value(&error.to_string()) {
        // serde_json finds line and column in the text again.
        Some(text) => Error::custom(text),
        None => error,
    }
}

/// The text of an error of serde without the value in it, such as "invalid type: string, expected i32"; `None` if it quotes
/// none.
fn without_value(text: &str) -> Option<String> {
    let quotes = ["invalid type: ", "invalid value: ", "unknown variant "];
    quotes.iter().find(|quotes| text.starts_with(**quotes))?;
    let value = text.find(['"', '`'])?;
    let expected = text.rfind(", expected ").or_else(|| text.rfind(", there are no variants"))?;
    (value < expected).then(|| format!("{}{}", text[..value].trim_end(), &text[expected..]))
}

/// The content of a variant that is known by its index.
struct VariantContent<'j, 't> {
    index: u32,
    json: &'j mut Json<'t>,
}

impl<'de> Deserializer<'de> for VariantContent<'_, 'de> {
    type Error = serde_json::Error;

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_enum(self)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Self::Error> {
        Err(Error::custom("the event is not read by serde as a plain enum"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de> EnumAccess<'de> for VariantContent<'_, 'de> {
    type Error = serde_json::Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Self::Error> {
        let index: U32Deserializer<Self::Error> = self.index.into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'de> VariantAccess<'de> for VariantContent<'_, 'de> {
    type Error = serde_json::Error;

    fn unit_variant(self) -> Result<(), Self::Error> {
        self.json.deserialize_any(EmptyContent)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Self::Error> {
        seed.deserialize(self.json)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Self::Error> {
        self.json.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        // As a struct, serde_json would take an array as well.
        self.json.deserialize_map(visitor)
    }
}

/// The content of a unit variant: an object, whose fields are those of another build and ignored as those of a variant with
/// fields are; or `null` as another writer may have put it.
struct EmptyContent;

impl<'de> Visitor<'de> for EmptyContent {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`{}`, as the event has no fields")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }
}
