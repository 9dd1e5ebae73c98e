//! A layer around serde_json's serializer that writes an enum's content without the name of its variant.

use serde::Serialize;
use serde::ser::{
    Error, Impossible, SerializeMap, SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleVariant,
    Serializer,
};

use super::guard::{Guard, Guarded};

/// The error for an enum that serde writes in another form, and for a type that is not an enum.
pub(super) const NO_PLAIN_ENUM: &str = "is not written by serde as a plain enum";

/// Writes the content of a variant: `{}` for a unit variant, an object for named fields, the inner value for one field,
/// an array for several.
pub(super) struct Content<S>(pub(super) S);

/// The fields of a variant, as an object or an array.
pub(super) struct ContentFields<C>(C);

macro_rules! refuse {
    ($($method:ident($($type:ty),*) -> $ok:ty),* $(,)?) => {
        $(fn $method(self, $(_: $type),*) -> Result<$ok, S::Error> {
            Err(S::Error::custom(NO_PLAIN_ENUM))
        })*
    };
}

impl<S: Serializer> Serializer for Content<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Impossible<S::Ok, S::Error>;
    type SerializeTuple = Impossible<S::Ok, S::Error>;
    type SerializeTupleStruct = Impossible<S::Ok, S::Error>;
    type SerializeTupleVariant = ContentFields<S::SerializeTuple>;
    type SerializeMap = Impossible<S::Ok, S::Error>;
    type SerializeStruct = Impossible<S::Ok, S::Error>;
    type SerializeStructVariant = ContentFields<S::SerializeStruct>;

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<S::Ok, S::Error> {
        self.0.serialize_map(Some(0))?.end()
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        value.serialize(Guard::new(self.0))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.0.serialize_tuple(len).map(ContentFields)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        self.0.serialize_struct(variant, len).map(ContentFields)
    }

    refuse! {
        serialize_bool(bool) -> S::Ok, serialize_i8(i8) -> S::Ok, serialize_i16(i16) -> S::Ok,
        serialize_i32(i32) -> S::Ok, serialize_i64(i64) -> S::Ok, serialize_i128(i128) -> S::Ok,
        serialize_u8(u8) -> S::Ok, serialize_u16(u16) -> S::Ok, serialize_u32(u32) -> S::Ok,
        serialize_u64(u64) -> S::Ok, serialize_u128(u128) -> S::Ok, serialize_f32(f32) -> S::Ok,
        serialize_f64(f64) -> S::Ok, serialize_char(char) -> S::Ok, serialize_str(&str) -> S::Ok,
        serialize_bytes(&[u8]) -> S::Ok, serialize_none() -> S::Ok, serialize_unit() -> S::Ok,
        serialize_unit_struct(&'static str) -> S::Ok,
        serialize_seq(Option<usize>) -> Self::SerializeSeq, serialize_tuple(usize) -> Self::SerializeTuple,
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct,
        serialize_map(Option<usize>) -> Self::SerializeMap,
        serialize_struct(&'static str, usize) -> Self::SerializeStruct,
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<S::Ok, S::Error> {
        Err(S::Error::custom(NO_PLAIN_ENUM))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, _: &T) -> Result<S::Ok, S::Error> {
        Err(S::Error::custom(NO_PLAIN_ENUM))
    }
}

impl<C: SerializeTuple> SerializeTupleVariant for ContentFields<C> {
    type Ok = C::Ok;
    type Error = C::Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        self.0.serialize_element(&Guarded::outermost(value))
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        self.0.end()
    }
}

impl<C: SerializeStruct> SerializeStructVariant for ContentFields<C> {
    type Ok = C::Ok;
    type Error = C::Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), C::Error> {
        self.0.serialize_field(key, &Guarded::outermost(value))
    }

    fn skip_field(&mut self, key: &'static str) -> Result<(), C::Error> {
        self.0.skip_field(key)
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        self.0.end()
    }
}
