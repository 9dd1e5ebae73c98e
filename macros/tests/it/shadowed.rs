//! Derived code in a module where the usual names mean something else.

#![allow(dead_code, non_camel_case_types, non_upper_case_globals, reason = "the names are here to be in the way")]

struct Result;
struct Option;
struct String;
struct Vec;
struct Some;
struct Ok;
struct Err;
struct Iterator;
struct Clone;
struct EventShape;
struct Payload;
struct Invalid;
struct DecodeError;
struct ReadModel;
struct Column;
const name: () = ();
const payload: () = ();
const schema_version: () = ();
const columns: () = ();
const error: () = ();
mod core {}
mod std {}
mod serde {}
mod annals_eventstore {}

#[derive(annals_macros::Event, ::serde::Serialize, ::serde::Deserialize, ::core::clone::Clone)]
enum Happened {
    #[event(name = "shadow.fell")]
    Fell { deep: ::core::primitive::u32 },
    #[event(name = "shadow.left", version = 2)]
    Ok,
}

#[derive(
    annals_macros::Aggregate,
    ::serde::Serialize,
    ::serde::Deserialize,
    ::core::default::Default,
    ::core::clone::Clone,
    ::core::cmp::PartialEq,
)]
#[aggregate(name = "shadow", id = ::core::primitive::u32, event = Happened, snapshot(every = 5))]
struct Shadow;

#[derive(annals_macros::ReadModel, ::core::clone::Clone)]
#[read_model(table = "shadows", key = "id", index = "noted", crate = crate::mirror)]
struct ShadowRow {
    id: i64,
    noted: ::core::option::Option<i64>,
}

/// A lifetime with a name that derived code might use.
#[derive(annals_macros::Event, ::serde::Serialize, ::serde::Deserialize)]
#[event(name = "shadow.called")]
struct Called(::core::marker::PhantomData<for<'a> fn(&'a ()) -> &'a ()>);

/// serde's derives need the primitive types under their names, ours do not.
mod primitives {
    type str = ();
    type u32 = ();
    type bool = ();
    type i64 = ();

    #[derive(annals_macros::Event, ::core::clone::Clone)]
    #[event(name = "bell.rung")]
    pub(super) struct Rung;

    impl ::serde::Serialize for Rung {
        fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> ::core::result::Result<S::Ok, S::Error> {
            serializer.serialize_unit()
        }
    }

    impl<'de> ::serde::Deserialize<'de> for Rung {
        fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> ::core::result::Result<Self, D::Error> {
            <() as ::serde::Deserialize>::deserialize(deserializer).map(|()| Self)
        }
    }

    #[derive(annals_macros::Aggregate, ::core::default::Default, ::core::clone::Clone)]
    #[aggregate(name = "bell", id = ::core::primitive::u32, event = Rung, fold = 3)]
    pub(super) struct Bell;

    #[derive(annals_macros::ReadModel, ::core::clone::Clone)]
    #[read_model(table = "bells", key = "id", crate = crate::mirror)]
    pub(super) struct BellRow {
        pub(super) id: ::core::primitive::i64,
        #[column(text)]
        pub(super) word: ::std::string::String,
    }
}

#[test]
fn derived_code_ignores_shadowed_names() {
    use ::annals_eventstore::{Aggregate, Event};
    let event = Happened::Fell { deep: 3 };
    let stored = event.encode().unwrap();
    ::core::assert!(::core::matches!(
        Happened::decode("shadow.fell", 1, &stored),
        ::core::result::Result::Ok(Happened::Fell { deep: 3 })
    ));
    ::core::assert_eq!(Happened::Ok.shape().version, 2);
    ::core::assert_eq!(<Shadow as Aggregate>::TYPE, "shadow");
    let row = ShadowRow { id: 1, noted: ::core::option::Option::Some(2) };
    ::core::assert_eq!(crate::mirror::ReadModel::to_columns(&row).len(), 2);
    ::core::assert!(primitives::Rung.encode().is_ok());
    ::core::assert_eq!(<primitives::Bell as Aggregate>::FOLD, 3);
    let row = primitives::BellRow { id: 1, word: "ding".into() };
    ::core::assert_eq!(crate::mirror::ReadModel::key(&row), 1);
}
