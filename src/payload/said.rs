//! What a value's own `Serialize` said when it failed. Postcard keeps no text of such an error.

use serde::{Serialize, de::value::Error, ser};

/// Serialises to nowhere, to meet the same error again in a type that keeps its text.
#[derive(Clone, Copy)]
struct Nowhere;

/// The error of the value's own `Serialize`, with its text; none if it has none.
pub fn said(value: &impl Serialize) -> Option<Error> {
    value.serialize(Nowhere).err()
}

macro_rules! take_nothing_of {
    ($($method:ident($($argument:ty),*))*) => {$(
        fn $method(self $(, _: $argument)*) -> Result<(), Error> {
            Ok(())
        }
    )*};
}

macro_rules! begin {
    ($($method:ident($($argument:ty),*))*) => {$(
        fn $method(self $(, _: $argument)*) -> Result<Nowhere, Error> {
            Ok(Nowhere)
        }
    )*};
}

impl ser::Serializer for Nowhere {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Nowhere;
    type SerializeTuple = Nowhere;
    type SerializeTupleStruct = Nowhere;
    type SerializeTupleVariant = Nowhere;
    type SerializeMap = Nowhere;
    type SerializeStruct = Nowhere;
    type SerializeStructVariant = Nowhere;

    take_nothing_of! {
        serialize_bool(bool) serialize_char(char) serialize_str(&str) serialize_bytes(&[u8])
        serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64) serialize_i128(i128)
        serialize_u8(u8) serialize_u16(u16) serialize_u32(u32) serialize_u64(u64) serialize_u128(u128)
        serialize_f32(f32) serialize_f64(f64)
        serialize_none() serialize_unit() serialize_unit_struct(&'static str)
        serialize_unit_variant(&'static str, u32, &'static str)
    }

    begin! {
        serialize_seq(Option<usize>)
        serialize_tuple(usize)
        serialize_tuple_struct(&'static str, usize)
        serialize_tuple_variant(&'static str, u32, &'static str, usize)
        serialize_map(Option<usize>)
        serialize_struct(&'static str, usize)
        serialize_struct_variant(&'static str, u32, &'static str, usize)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    /// As postcard has it, so that the value goes the same way.
    fn is_human_readable(&self) -> bool {
        false
    }
}

macro_rules! look_into {
    ($($compound:ident: $($method:ident($($key:ty)?))*;)*) => {$(
        impl ser::$compound for Nowhere {
            type Ok = ();
            type Error = Error;

            $(fn $method<T: Serialize + ?Sized>(
                &mut self,
                $(_: $key,)?
                value: &T,
            ) -> Result<(), Error> {
                value.serialize(Nowhere)
            })*

            fn end(self) -> Result<(), Error> {
                Ok(())
            }
        }
    )*};
}

look_into! {
    SerializeSeq: serialize_element();
    SerializeTuple: serialize_element();
    SerializeTupleStruct: serialize_field();
    SerializeTupleVariant: serialize_field();
    SerializeMap: serialize_key() serialize_value();
    SerializeStruct: serialize_field(&'static str);
    SerializeStructVariant: serialize_field(&'static str);
}
