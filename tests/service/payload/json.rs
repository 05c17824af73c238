//! Which serde types need an encoding that describes itself, and that `Json` is one.

use std::{collections::BTreeMap, error::Error, fmt::Debug};

use bytes::Bytes;
use hinted_handoff::{EncodeError, Json, Payload, PayloadError, Postcard};
use proptest::prelude::*;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Flat {
    name: String,
    #[serde(flatten)]
    fields: BTreeMap<String, f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(i64),
    Text(String),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Point { value: f64 },
}

fn encoded(payload: &impl Payload) -> Result<Bytes, EncodeError> {
    let mut bytes = Vec::new();
    payload.encode(&mut bytes)?;
    Ok(bytes.into())
}

fn round_trip<T>(value: &T)
where
    T: Debug + Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let bytes = encoded(&Json::<T, 1>(value.clone())).unwrap();
    assert_eq!(Json::<T, 1>::decode(1, bytes).unwrap().0, *value);
}

/// What the cause says, with its own causes.
fn cause(error: &dyn Error) -> String {
    let mut next = error.source();
    let mut text = String::new();
    while let Some(cause) = next {
        text += &cause.to_string();
        next = cause.source();
    }
    text
}

fn does_not_decode<P: Payload + Debug>(format: u16, bytes: impl Into<Bytes>) -> String {
    let error = P::decode(format, bytes.into()).unwrap_err();
    assert!(
        matches!(error, PayloadError::Malformed { format: of, .. } if of == format),
        "{error:?}"
    );
    cause(&error)
}

#[test]
fn a_json_value_and_enums_without_an_index_encode_as_postcard_and_never_decode() {
    let value = encoded(&Postcard::<_, 1>(json!({ "a": [1, "b", null] }))).unwrap();
    let untagged = encoded(&Postcard::<_, 1>(Untagged::Text("a".to_owned()))).unwrap();
    let tagged = encoded(&Postcard::<_, 1>(Tagged::Point { value: 1.0 })).unwrap();
    for said in [
        does_not_decode::<Postcard<Value, 1>>(1, value),
        does_not_decode::<Postcard<Untagged, 1>>(1, untagged),
        does_not_decode::<Postcard<Tagged, 1>>(1, tagged),
    ] {
        assert!(said.contains("postcard cannot hold this type"), "{said}");
    }
}

#[test]
fn a_flattened_struct_does_not_encode_as_postcard() {
    let error = encoded(&Postcard::<_, 1>(Flat {
        name: "cpu".to_owned(),
        fields: [("usage".to_owned(), 0.5)].into(),
    }));
    let said = cause(&error.unwrap_err());
    assert!(said.contains("postcard cannot hold this type"), "{said}");
}

#[test]
fn what_postcard_cannot_hold_comes_back_from_json() {
    round_trip(&json!({ "a": [1, "b", null, -0.5e-9], "": { "deep": [[[]]] } }));
    round_trip(&Flat {
        name: "cpu".to_owned(),
        fields: [("usage".to_owned(), 0.1), ("idle".to_owned(), -1e300)].into(),
    });
    round_trip(&vec![
        Untagged::Number(i64::MIN),
        Untagged::Text("a".to_owned()),
    ]);
    round_trip(&Tagged::Point { value: 1.0 });
}

proptest! {
    #[test]
    fn floats_come_back_from_json_bit_for_bit(bits in any::<u64>()) {
        let float = f64::from_bits(bits);
        let encoded = encoded(&Json::<_, 1>(float));
        match float.is_finite() {
            true => {
                let back = Json::<f64, 1>::decode(1, encoded.unwrap()).unwrap();
                prop_assert_eq!(back.0.to_bits(), bits);
            }
            false => prop_assert!(encoded.is_err()),
        }
    }
}

#[test]
fn json_that_is_cut_off_or_goes_on_or_is_too_deep_or_no_text_is_malformed() {
    for (bytes, said) in [
        (b"".to_vec(), "EOF"),
        (b" ".to_vec(), "EOF"),
        (b"[1, 2".to_vec(), "EOF"),
        (b"[1] [2]".to_vec(), "trailing characters"),
        (b"[1]\0".to_vec(), "trailing characters"),
        (vec![b'['; 1 << 20], "recursion limit"),
        (br#"{"a":"#.repeat(1 << 18), "recursion limit"),
        (b"\"\xff\"".to_vec(), "invalid unicode"),
    ] {
        let cause = does_not_decode::<Json<Value, 1>>(1, bytes);
        assert!(cause.contains(said), "{cause}");
    }
}

#[test]
fn json_of_another_format_is_told_as_such_and_not_looked_at() {
    let error = Json::<u64, 7>::decode(8, Bytes::from_static(b"1")).unwrap_err();
    assert!(matches!(
        error,
        PayloadError::UnknownFormat {
            found: 8,
            written: 7,
        }
    ));
}

#[test]
fn a_value_whose_json_would_not_decode_is_refused() {
    let mut deep = Value::Null;
    for _ in 0..127 {
        deep = json!([deep]);
    }
    round_trip(&deep);
    let said = cause(&encoded(&Json::<_, 1>(json!([deep]))).unwrap_err());
    assert!(said.contains("does not decode again"), "{said}");
    assert!(said.contains("recursion limit"), "{said}");
    let said = cause(&encoded(&Json::<_, 1>(vec![1.0, f64::NAN])).unwrap_err());
    assert!(said.contains("invalid type: null"), "{said}");
}

#[test]
fn what_a_value_says_why_it_has_no_json_reaches_the_caller() {
    let by_list: BTreeMap<Vec<u8>, u8> = [(vec![1], 2)].into();
    let said = cause(&encoded(&Json::<_, 1>(by_list)).unwrap_err());
    assert!(said.contains("key must be a string"), "{said}");
}
