use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    BooleanArray, Date32Array, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array,
    TimestampMicrosecondArray, UInt8Array, UInt32Array,
};
use proptest::prelude::*;

use super::*;

fn encode(columns: &[ArrayRef], row: usize) -> Vec<u8> {
    let types: Vec<_> = columns.iter().map(|column| column.data_type().clone()).collect();
    let mut key = Vec::new();
    KeyEncoder::new(&types).unwrap().encode(columns, row, &mut key).unwrap();
    key
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn golden_vectors_pin_the_encoding_and_the_hash() {
    let cases: Vec<(ArrayRef, &str, u64)> = vec![
        (Arc::new(Int64Array::from(vec![None])), "00", GOLDEN[0]),
        (Arc::new(BooleanArray::from(vec![true])), "0101", GOLDEN[1]),
        (Arc::new(Int64Array::from(vec![0])), "028000000000000000", GOLDEN[2]),
        (Arc::new(Int32Array::from(vec![-1])), "027fffffffffffffff", GOLDEN[3]),
        (Arc::new(UInt64Array::from(vec![42])), "03000000000000002a", GOLDEN[4]),
        (Arc::new(StringViewArray::from(vec!["N14228"])), "04064e3134323238", GOLDEN[5]),
        (Arc::new(StringViewArray::from(vec![""])), "0400", GOLDEN[6]),
        (Arc::new(BinaryArray::from(vec![&[0u8, 255][..]])), "050200ff", GOLDEN[7]),
        (Arc::new(TimestampMicrosecondArray::from(vec![1])), "088000000000000001", GOLDEN[8]),
        (Arc::new(Date32Array::from(vec![1])), "0a8000000000000001", GOLDEN[9]),
        (Arc::new(StringViewArray::from(vec!["é".repeat(100)])), "", GOLDEN[10]),
        (Arc::new(StringViewArray::from(vec!["x".repeat(300)])), "", GOLDEN[11]),
    ];
    let mut wrong = Vec::new();
    for (column, key, hash) in cases {
        let encoded = encode(std::slice::from_ref(&column), 0);
        if !key.is_empty() {
            assert_eq!(hex(&encoded), key, "{column:?}");
        }
        let hashes = hash_keys(std::slice::from_ref(&column), 1).unwrap();
        assert_eq!(hashes.value(0), hash_key(&encoded), "{column:?}");
        if hash_key(&encoded) != hash {
            wrong.push(format!("{:#018x}", hash_key(&encoded)));
        }
    }
    assert!(wrong.is_empty(), "the pinned hash changed: {wrong:#?}");
}

/// As the reference implementation of xxHash has them.
const GOLDEN: [u64; 12] = [
    0x2cc2_d34a_4cf0_58b5,
    0x608a_5844_3d07_9fa1,
    0xb5b4_669c_8418_23d0,
    0x8e60_a3bd_224d_4f46,
    0xbc64_aa41_8a7b_820f,
    0x0def_c917_0f1f_daa2,
    0x9fb7_8ade_f09d_d8bb,
    0x619b_8476_3989_db05,
    0x24e9_c31e_a34a_e6cd,
    0x5ad8_1082_89fb_6376,
    0x2baa_4f3b_7f0b_0d97,
    0x1f64_cdf6_a6f6_16b5,
];

#[test]
fn widths_and_string_layouts_encode_alike() {
    let ints: [ArrayRef; 4] = [
        Arc::new(Int8Array::from(vec![-5])),
        Arc::new(Int16Array::from(vec![-5])),
        Arc::new(Int32Array::from(vec![-5])),
        Arc::new(Int64Array::from(vec![-5])),
    ];
    for int in &ints {
        assert_eq!(encode(std::slice::from_ref(int), 0), encode(&[ints[0].clone()], 0));
    }
    assert_eq!(
        encode(&[Arc::new(UInt8Array::from(vec![7]))], 0),
        encode(&[Arc::new(UInt32Array::from(vec![7]))], 0)
    );
    let view: ArrayRef = Arc::new(StringViewArray::from(vec!["a longer string than twelve"]));
    let plain: ArrayRef = Arc::new(StringArray::from(vec!["a longer string than twelve"]));
    let large: ArrayRef = Arc::new(LargeStringArray::from(vec!["a longer string than twelve"]));
    assert_eq!(encode(std::slice::from_ref(&view), 0), encode(&[plain], 0));
    assert_eq!(encode(&[view], 0), encode(&[large], 0));
}

#[test]
fn a_float_is_refused_and_named() {
    let column: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
    let error = hash_keys(&[column], 1).unwrap_err();
    assert!(error.to_string().contains("Float64"), "{error}");
    assert!(KeyEncoder::new(&[DataType::Float32]).is_err());
}

#[test]
fn a_slice_of_a_column_is_read_at_its_own_rows() {
    let whole: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3), Some(4)]));
    let slice = whole.slice(1, 3);
    let all = hash_keys(&[whole], 4).unwrap();
    let some = hash_keys(&[slice], 3).unwrap();
    assert_eq!(some.values(), &all.values()[1..]);
}

#[test]
fn damaged_keys_are_errors() {
    let types = [DataType::Int64, DataType::Utf8View];
    let mut key = vec![TAG_SIGNED, 0, 0, 0, 0, 0, 0, 0, 1, TAG_UTF8, 2, b'a', b'b'];
    assert!(decode_key(&key, &types).is_ok());
    for length in 0..key.len() {
        assert!(decode_key(&key[..length], &types).is_err(), "{length}");
    }
    key.push(0);
    assert!(decode_key(&key, &types).is_err());
    assert!(decode_key(&key, &[DataType::Utf8View]).is_err());
}

type Row = (Option<i64>, Option<String>, Option<Vec<u8>>, Option<bool>, Option<u8>);

fn columns(rows: &[Row]) -> Vec<ArrayRef> {
    vec![
        Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.1.as_deref()).collect::<StringViewArray>()),
        Arc::new(rows.iter().map(|row| row.2.as_deref()).collect::<BinaryArray>()),
        Arc::new(rows.iter().map(|row| row.3).collect::<BooleanArray>()),
        Arc::new(rows.iter().map(|row| row.4).collect::<UInt8Array>()),
    ]
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let text = proptest::option::of("[a\u{0}\u{4}é]{0,3}");
    let bytes = proptest::option::of(proptest::collection::vec(0u8..6, 0..4));
    let number =
        proptest::option::of(prop_oneof![Just(0), Just(-1), Just(i64::MIN), Just(i64::MAX), 0i64..3]);
    let row = (number, text, bytes, proptest::option::of(any::<bool>()), proptest::option::of(0u8..3));
    proptest::collection::vec(row, 1..60)
}

proptest! {
    #[test]
    fn different_tuples_have_different_keys_and_every_key_decodes_to_its_tuple(rows in rows()) {
        let columns = columns(&rows);
        let mut seen: BTreeMap<Vec<u8>, &Row> = BTreeMap::new();
        let bound = KeyColumns::new(&columns).unwrap();
        let hashes = hash_keys(&columns, rows.len()).unwrap();
        let mut keys = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            let key = encode(&columns, index);
            let mut other = Vec::new();
            bound.encode(index, &mut other);
            prop_assert_eq!(&key, &other);
            prop_assert_eq!(hashes.value(index), hash_key(&key));
            if let Some(first) = seen.insert(key.clone(), row) {
                prop_assert_eq!(first, row);
            }
            keys.push(key);
        }
        let types: Vec<_> = columns.iter().map(|column| column.data_type().clone()).collect();
        let slices: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let decoded = decode_keys(&slices, &types).unwrap();
        for (decoded, column) in decoded.iter().zip(&columns) {
            prop_assert_eq!(decoded.as_ref(), column.as_ref());
        }
    }

    #[test]
    fn numbers_sort_as_they_do_in_their_encoding(a: i64, b: i64) {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![a, b]));
        prop_assert_eq!(encode(std::slice::from_ref(&column), 0).cmp(&encode(&[column], 1)), a.cmp(&b));
    }
}
