//! Ids that are text: a type each, so that the customer's id is never taken for the order's.

use std::sync::Arc;

use crate::error::Invalid;
use crate::name::check_name;

/// Makes types for ids that are text, such as the id of an aggregate.
///
/// The text has 1 to 200 bytes, no control characters, and does not begin with `$` or `__`: what every store can hold as
/// the name of a stream. It is kept byte for byte, and checked from every source, JSON included. Cloning is cheap.
///
/// Each type has `new`, `as_str`, `FromStr`, `TryFrom<&str>`, `TryFrom<String>`, `Display`, `Debug`, `AsRef<str>`,
/// `Borrow<str>`, serde's `Serialize` and `Deserialize`, and compares and hashes as its text. Errors are
/// [`Invalid`](crate::Invalid) and name the type as a field: `order_id` for `OrderId`. In `annals`, where there
/// are projections, each type is a column of read models too.
///
/// ```
/// annals_eventstore::text_id! {
///     /// What names an order.
///     pub struct OrderId;
///
///     /// What names a customer.
///     pub struct CustomerId;
/// }
///
/// let order = OrderId::new("o-17")?;
/// assert_eq!(order.to_string(), "o-17");
/// assert_eq!("o-17".parse(), Ok(order));
/// assert_eq!(CustomerId::new("").unwrap_err().field, "customer_id");
/// # Ok::<(), annals_eventstore::Invalid>(())
/// ```
#[macro_export]
macro_rules! text_id {
    ($($(#[$meta:meta])* $vis:vis struct $name:ident;)+) => {
        $(
            $(#[$meta])*
            #[derive(
                ::core::clone::Clone,
                ::core::cmp::PartialEq,
                ::core::cmp::Eq,
                ::core::cmp::PartialOrd,
                ::core::cmp::Ord,
                ::core::hash::Hash,
            )]
            $vis struct $name($crate::__private::IdText);

            impl $name {
                /// Checks the text and makes an id of it.
                ///
                /// # Errors
                /// If it is empty or too long, has control characters, or begins with `$` or `__`.
                $vis fn new(text: impl ::core::convert::AsRef<str>) -> ::core::result::Result<Self, $crate::Invalid> {
                    $crate::__private::id_text(::core::stringify!($name), text.as_ref()).map(Self)
                }

                /// The text.
                #[must_use]
                #[allow(dead_code, reason = "not every id is read as text")]
                $vis fn as_str(&self) -> &str {
                    &self.0
                }
            }

            impl ::core::str::FromStr for $name {
                type Err = $crate::Invalid;

                fn from_str(text: &str) -> ::core::result::Result<Self, $crate::Invalid> {
                    Self::new(text)
                }
            }

            impl ::core::convert::TryFrom<&str> for $name {
                type Error = $crate::Invalid;

                fn try_from(text: &str) -> ::core::result::Result<Self, $crate::Invalid> {
                    Self::new(text)
                }
            }

            impl ::core::convert::TryFrom<::std::string::String> for $name {
                type Error = $crate::Invalid;

                fn try_from(text: ::std::string::String) -> ::core::result::Result<Self, $crate::Invalid> {
                    Self::new(text)
                }
            }

            impl ::core::convert::AsRef<str> for $name {
                fn as_ref(&self) -> &str {
                    &self.0
                }
            }

            impl ::core::borrow::Borrow<str> for $name {
                fn borrow(&self) -> &str {
                    &self.0
                }
            }

            impl ::core::fmt::Display for $name {
                fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                    ::core::fmt::Display::fmt(&*self.0, f)
                }
            }

            impl ::core::fmt::Debug for $name {
                fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                    f.debug_tuple(::core::stringify!($name)).field(&&*self.0).finish()
                }
            }

            impl $crate::__private::serde::Serialize for $name {
                fn serialize<S: $crate::__private::serde::Serializer>(
                    &self,
                    serializer: S,
                ) -> ::core::result::Result<S::Ok, S::Error> {
                    serializer.serialize_str(&self.0)
                }
            }

            impl<'de> $crate::__private::serde::Deserialize<'de> for $name {
                fn deserialize<D: $crate::__private::serde::Deserializer<'de>>(
                    deserializer: D,
                ) -> ::core::result::Result<Self, D::Error> {
                    $crate::__private::read_id(::core::stringify!($name), deserializer).map(Self)
                }
            }
        )+
    };
}

/// What an id holds.
pub type IdText = Arc<str>;

/// Checks the text of an id of the type called `type_name`.
///
/// # Errors
/// [`Invalid`] with the type's name as the field.
pub fn id_text(type_name: &str, text: &str) -> Result<IdText, Invalid> {
    check_name("", text).map_err(|e| Invalid::new(field_name(type_name), e.problem, e.fix))?;
    Ok(text.into())
}

/// Reads the text of an id.
///
/// # Errors
/// If there is no text, or one that [`id_text`] refuses.
pub fn read_id<'de, D: serde::Deserializer<'de>>(type_name: &'static str, deserializer: D) -> Result<IdText, D::Error> {
    deserializer.deserialize_str(IdVisitor { type_name })
}

struct IdVisitor {
    type_name: &'static str,
}

impl serde::de::Visitor<'_> for IdVisitor {
    type Value = IdText;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the text of a `{}`", self.type_name)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<IdText, E> {
        id_text(self.type_name, text).map_err(E::custom)
    }
}

/// `OrderId` as a field: `order_id`.
fn field_name(type_name: &str) -> String {
    let mut field = String::with_capacity(type_name.len() + 2);
    let mut before_is_lower = false;
    for c in type_name.trim_start_matches("r#").chars() {
        if c.is_uppercase() && before_is_lower {
            field.push('_');
        }
        before_is_lower = !c.is_uppercase() && c != '_';
        field.extend(c.to_lowercase());
    }
    field
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::field_name;
    use crate::error::Invalid;

    crate::text_id! {
        /// An id.
        pub(crate) struct OrderId;

        #[doc = "Another."]
        struct Sku;
    }

    /// Names of the prelude that a user may have given to other things.
    #[allow(dead_code, reason = "they only shadow other names")]
    mod shadowed {
        type Result = ();
        type String = ();
        struct Option;
        #[allow(non_snake_case, reason = "as above")]
        fn Ok() {}

        crate::text_id! {
            pub(super) struct Id;
        }
    }

    #[test]
    fn an_invalid_stream_name_is_refused_from_every_source() {
        let long = "x".repeat(201);
        for bad in ["", "a\0b", "a\n", "$all", "__x", &long] {
            let refusals: [Result<OrderId, Invalid>; 4] =
                [OrderId::new(bad), bad.parse(), bad.try_into(), bad.to_owned().try_into()];
            for refused in refusals {
                let e = refused.unwrap_err();
                assert_eq!(e.field, "order_id");
                assert!(!e.fix.is_empty());
            }
            let json = serde_json::to_string(bad).expect("it is sound");
            let e = serde_json::from_str::<OrderId>(&json).unwrap_err();
            assert!(e.to_string().contains("`order_id`"), "{e}");
        }
        let e = serde_json::from_str::<OrderId>("7").unwrap_err();
        assert!(e.to_string().contains("expected the text of a `OrderId`"), "{e}");
    }

    #[test]
    fn what_is_accepted_is_kept_byte_for_byte() {
        for text in ["o-17", "007", "7.0", "a ", "A", "caf\u{e9}", "cafe\u{301}", &"x".repeat(200)] {
            let id = OrderId::new(text).expect("it is sound");
            assert_eq!((id.as_str(), id.as_ref(), id.to_string().as_str()), (text, text, text));
            let json = serde_json::to_string(&id).expect("it is sound");
            assert_eq!(json, serde_json::to_string(text).expect("it is sound"));
            assert_eq!(serde_json::from_str::<OrderId>(&json).expect("it is sound"), id);
        }
        assert_eq!(shadowed::Id::new("x").expect("it is sound").as_str(), "x");
    }

    #[test]
    fn ids_compare_and_hash_as_their_text() {
        let id = |text: &str| Sku::new(text).expect("it is sound");
        assert!(id("a") < id("b") && id("a") != id("A"));
        assert_eq!(format!("{:?} {:>3}|", id("a"), id("b")), "Sku(\"a\")   b|");
        let by_id = HashMap::from([(id("a"), 1)]);
        assert_eq!(by_id.get("a"), Some(&1));
    }

    #[test]
    fn a_type_name_becomes_a_field_name() {
        for (name, field) in
            [("OrderId", "order_id"), ("Sku", "sku"), ("SKU", "sku"), ("r#OrderLineId", "order_line_id")]
        {
            assert_eq!(field_name(name), field);
        }
    }
}
