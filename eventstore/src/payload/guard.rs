//! A layer around serde_json's serializer that refuses what it would change in silence, or what would exhaust the stack.

use serde::Serialize;
use serde::ser::{
    Error, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleStruct,
    SerializeTupleVariant, Serializer,
};

use super::MAX_DEPTH;

/// The error for a NaN. serde_json writes it as `null`, which can never be read as a number again.
pub(super) const NAN: &str = "is NaN, which JSON cannot hold";
/// The error for an infinity, which serde_json writes as `null` as well.
pub(super) const INFINITE: &str = "is infinite, which JSON cannot hold";
/// The error for a value that nests too deep.
pub(super) const TOO_DEEP: &str = "nests too deep";

/// How deep values may nest where the inner one is written alone: an `Option` or a newtype struct
/// opens nothing in the text, but uses the stack.
const MAX_WRAPPED: usize = 4 * MAX_DEPTH;

/// How deep a value is nested.
#[derive(Clone, Copy, Default)]
struct Depth {
    /// How many arrays and objects are open.
    open: usize,
    /// How many values that are written as their inner one.
    wrapped: usize,
}

/// Forwards everything to `inner`, but refuses non-finite numbers and nesting beyond [`MAX_DEPTH`].
pub(super) struct Guard<S> {
    inner: S,
    depth: Depth,
}

impl<S> Guard<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, depth: Depth::default() }
    }
}

/// A value that is written through a [`Guard`], at any depth.
pub(super) struct Guarded<'v, T: ?Sized> {
    value: &'v T,
    depth: Depth,
}

impl<'v, T: ?Sized> Guarded<'v, T> {
    /// A part of the outermost array or object.
    pub(super) fn outermost(value: &'v T) -> Self {
        Self { value, depth: Depth { open: 1, wrapped: 0 } }
    }
}

impl<T: Serialize + ?Sized> Serialize for Guarded<'_, T> {
    fn serialize<S: Serializer>(&self, inner: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(Guard { inner, depth: self.depth })
    }
}

/// An open array or object, whose parts are guarded one level deeper.
pub(super) struct GuardedParts<C> {
    inner: C,
    depth: Depth,
}

impl<S: Serializer> Guard<S> {
    fn deeper<C>(self, open: impl FnOnce(S) -> Result<C, S::Error>) -> Result<GuardedParts<C>, S::Error> {
        let depth = self.one_open_more()?;
        Ok(GuardedParts { inner: open(self.inner)?, depth })
    }

    fn one_open_more(&self) -> Result<Depth, S::Error> {
        // The scan counts exactly, as a raw JSON value opens a struct here but nothing in the text. This check only protects the stack.
        if self.depth.open > MAX_DEPTH {
            return Err(S::Error::custom(TOO_DEEP));
        }
        Ok(Depth { open: self.depth.open + 1, ..self.depth })
    }

    fn one_wrapped_more(&self) -> Result<Depth, S::Error> {
        if self.depth.wrapped > MAX_WRAPPED {
            return Err(S::Error::custom(TOO_DEEP));
        }
        Ok(Depth { wrapped: self.depth.wrapped + 1, ..self.depth })
    }
}

macro_rules! hand_on {
    ($($method:ident($($type:ty)?)),* $(,)?) => {
        $(fn $method(self $(, value: $type)?) -> Result<S::Ok, S::Error> {
            self.inner.$method($(value as $type)?)
        })*
    };
}

impl<S: Serializer> Serializer for Guard<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = GuardedParts<S::SerializeSeq>;
    type SerializeTuple = GuardedParts<S::SerializeTuple>;
    type SerializeTupleStruct = GuardedParts<S::SerializeTupleStruct>;
    type SerializeTupleVariant = GuardedParts<S::SerializeTupleVariant>;
    type SerializeMap = GuardedParts<S::SerializeMap>;
    type SerializeStruct = GuardedParts<S::SerializeStruct>;
    type SerializeStructVariant = GuardedParts<S::SerializeStructVariant>;

    fn serialize_f32(self, value: f32) -> Result<S::Ok, S::Error> {
        check_finite(value.into())?;
        self.inner.serialize_f32(value)
    }

    fn serialize_f64(self, value: f64) -> Result<S::Ok, S::Error> {
        check_finite(value)?;
        self.inner.serialize_f64(value)
    }

    hand_on! {
        serialize_bool(bool), serialize_i8(i8), serialize_i16(i16), serialize_i32(i32), serialize_i64(i64),
        serialize_i128(i128), serialize_u8(u8), serialize_u16(u16), serialize_u32(u32), serialize_u64(u64),
        serialize_u128(u128), serialize_char(char), serialize_str(&str), serialize_bytes(&[u8]),
        serialize_none(), serialize_unit(), serialize_unit_struct(&'static str),
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        let depth = self.one_wrapped_more()?;
        self.inner.serialize_some(&Guarded { value, depth })
    }

    fn serialize_unit_variant(self, name: &'static str, index: u32, variant: &'static str) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<S::Ok, S::Error> {
        let depth = self.one_wrapped_more()?;
        self.inner.serialize_newtype_struct(name, &Guarded { value, depth })
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let depth = self.one_open_more()?;
        self.inner.serialize_newtype_variant(name, index, variant, &Guarded { value, depth })
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        self.deeper(|inner| inner.serialize_seq(len))
    }

    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        self.deeper(|inner| inner.serialize_tuple(len))
    }

    fn serialize_tuple_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeTupleStruct, S::Error> {
        self.deeper(|inner| inner.serialize_tuple_struct(name, len))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.deeper(|inner| inner.serialize_tuple_variant(name, index, variant, len))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        self.deeper(|inner| inner.serialize_map(len))
    }

    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeStruct, S::Error> {
        self.deeper(|inner| inner.serialize_struct(name, len))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        self.deeper(|inner| inner.serialize_struct_variant(name, index, variant, len))
    }

    fn collect_str<T: std::fmt::Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.collect_str(value)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

fn check_finite<E: Error>(value: f64) -> Result<(), E> {
    if value.is_nan() {
        return Err(E::custom(NAN));
    }
    if value.is_infinite() {
        return Err(E::custom(INFINITE));
    }
    Ok(())
}

macro_rules! guard_elements {
    ($($kind:ident :: $method:ident),* $(,)?) => {
        $(impl<C: $kind> $kind for GuardedParts<C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
                self.inner.$method(&Guarded { value, depth: self.depth })
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.inner.end()
            }
        })*
    };
}

guard_elements! {
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,
}

macro_rules! guard_fields {
    ($($kind:ident),* $(,)?) => {
        $(impl<C: $kind> $kind for GuardedParts<C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), C::Error> {
                self.inner.serialize_field(key, &Guarded { value, depth: self.depth })
            }

            fn skip_field(&mut self, key: &'static str) -> Result<(), C::Error> {
                self.inner.skip_field(key)
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.inner.end()
            }
        })*
    };
}

guard_fields! { SerializeStruct, SerializeStructVariant }

impl<C: SerializeMap> SerializeMap for GuardedParts<C> {
    type Ok = C::Ok;
    type Error = C::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), C::Error> {
        // serde_json itself refuses keys that are no text, non-finite numbers among them.
        self.inner.serialize_key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        self.inner.serialize_value(&Guarded { value, depth: self.depth })
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        self.inner.end()
    }
}
