//! Weights and reference matrices from files: what is taken, what is refused and how it is said.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, Int32Array, Int64Array};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;
use thalweg_tensor::weights::StoredTensor;
use thalweg_tensor::{Element, Fingerprint, Graph, GraphBuilder, ReferenceMatrix, Weights};

/// A file of tensors.
fn write(directory: &TempDir, name: &str, tensors: &[(&str, Dtype, &[usize], Vec<u8>)]) -> PathBuf {
    let path = directory.path().join(name);
    std::fs::write(&path, bytes(tensors)).unwrap();
    path
}

fn bytes(tensors: &[(&str, Dtype, &[usize], Vec<u8>)]) -> Vec<u8> {
    let view = |dtype, dims: &[usize], data| TensorView::new(dtype, dims.to_vec(), data).unwrap();
    let views = tensors.iter().map(|(name, dtype, dims, data)| (*name, view(*dtype, dims, data)));
    safetensors::serialize(views, None).unwrap()
}

fn f32s(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn i64s(numbers: &[i64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// A graph with a weight `dense` of `[2, 3]`.
fn graph() -> Graph {
    let mut builder = GraphBuilder::new();
    let x = builder.tensor("x", Element::F32, [3]).unwrap();
    let weight = builder.weight("dense", [2, 3]).unwrap();
    let y = builder.matmul(x, weight, None, None).unwrap();
    builder.output("y", y).unwrap();
    builder.build().unwrap()
}

const SIX: [f32; 6] = [1.0, -2.0, 3.5, 0.0, 1e-3, 7.0];

#[test]
fn floats_of_every_kind_are_read_from_several_files() {
    let directory = tempfile::tempdir().unwrap();
    let halves: Vec<u8> = SIX.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect();
    let brain: Vec<u8> = SIX.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect();
    let first = write(
        &directory,
        "a.safetensors",
        &[
            ("odd", Dtype::I8, &[1], vec![1]),
            ("dense", Dtype::F32, &[2, 3], f32s(&SIX)),
            ("half", Dtype::F16, &[6], halves),
        ],
    );
    let second = write(&directory, "b.safetensors", &[("brain", Dtype::BF16, &[3, 2], brain)]);
    let weights = Weights::open([&first, &second]).unwrap();
    assert_eq!(weights.names().collect::<Vec<_>>(), ["brain", "dense", "half"]);
    assert_eq!(weights.to_f32("dense").unwrap(), SIX);
    assert_eq!(weights.get("half").unwrap().element, Element::F16);
    assert_eq!(weights.get("brain").unwrap().element, Element::F32);
    let rounded = SIX.map(|x| bf16::from_f32(x).to_f32());
    assert_eq!(weights.to_f32("brain").unwrap(), rounded);
    weights.check(&graph()).unwrap();
}

#[test]
fn weights_that_do_not_fit_are_named_with_file_and_both_shapes() {
    let directory = tempfile::tempdir().unwrap();
    let check = |tensors: &[(&str, Dtype, &[usize], Vec<u8>)]| {
        let path = write(&directory, "w.safetensors", tensors);
        let error = Weights::open([path]).unwrap().check(&graph()).unwrap_err().to_string();
        error.replace(&directory.path().display().to_string(), "DIR")
    };
    assert_eq!(
        check(&[("dense", Dtype::F32, &[3, 2], f32s(&SIX))]),
        "weight `dense` of DIR/w.safetensors: the graph needs shape [2, 3], it has [3, 2]"
    );
    assert_eq!(
        check(&[("other", Dtype::F32, &[6], f32s(&SIX))]),
        "weight `dense`: the graph needs it with shape [2, 3], and it is not there"
    );
    assert_eq!(
        check(&[("dense", Dtype::I64, &[2, 3], i64s(&[0; 6]))]),
        "weight `dense` of DIR/w.safetensors: is of I64, not of f32, f16 or bf16"
    );
}

#[test]
fn the_same_tensor_in_two_files_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let tensors: &[(&str, Dtype, &[usize], Vec<u8>)] = &[("dense", Dtype::F32, &[6], f32s(&SIX))];
    let paths = ["a", "b"].map(|name| write(&directory, name, tensors));
    let error = Weights::open(&paths).unwrap_err().to_string();
    let (a, b) = (paths[0].display(), paths[1].display());
    assert_eq!(error, format!("{b}: its tensor `dense` is in {a} already"));
}

/// Cut anywhere, or with a length that lies, a file is refused; nothing panics.
#[test]
fn damaged_files_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let whole = bytes(&[("dense", Dtype::F32, &[2, 3], f32s(&SIX))]);
    let path = directory.path().join("cut.safetensors");
    let shown = path.display().to_string();
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = Weights::open([&path]).unwrap_err().to_string();
        assert!(error.starts_with(&shown), "{length} bytes: {error}");
    }
    for (at, byte) in [(0, 0xff), (7, 0xff), (9, b'x'), (20, 0)] {
        let mut damaged = whole.clone();
        damaged[at] = byte;
        assert!(Weights::from_bytes("damaged", damaged.into()).is_err(), "byte {at}");
    }
    let missing = Weights::open([directory.path().join("none")]).unwrap_err();
    assert!(matches!(missing, thalweg_tensor::Error::Io { .. }), "{missing}");
}

#[test]
fn the_hash_is_of_what_is_stored_and_not_of_where() {
    let directory = tempfile::tempdir().unwrap();
    let a: (&str, Dtype, &[usize], Vec<u8>) = ("a", Dtype::F32, &[6], f32s(&SIX));
    let b: (&str, Dtype, &[usize], Vec<u8>) = ("b", Dtype::F32, &[1], f32s(&[1.0]));
    let together = Weights::open([write(&directory, "ab", &[a.clone(), b.clone()])]).unwrap();
    let apart = Weights::open([
        write(&directory, "b", std::slice::from_ref(&b)),
        write(&directory, "a", std::slice::from_ref(&a)),
    ])
    .unwrap();
    assert_eq!(together.hash(), apart.hash());
    let shape = Weights::open([write(&directory, "s", &[("a", Dtype::F32, &[2, 3], f32s(&SIX)), b.clone()])]);
    assert_ne!(together.hash(), shape.unwrap().hash());
    let name = Weights::open([write(&directory, "n", &[("c", Dtype::F32, &[6], f32s(&SIX)), b])]);
    assert_ne!(together.hash(), name.unwrap().hash());
    let mut changed = together.clone();
    let data = Buffer::from_vec(vec![1.5f32]);
    changed.insert("b", StoredTensor { element: Element::F32, dims: vec![1], data }).unwrap();
    assert_ne!(together.hash(), changed.hash());

    let print = |weights: &Weights, tokenizer: u8| {
        Fingerprint::new(&graph(), weights, [("t", [tokenizer; 32]), ("a", [0; 32])])
    };
    let swapped = Fingerprint::new(&graph(), &together, [("a", [0; 32]), ("t", [1; 32])]);
    assert_eq!(print(&together, 1), swapped);
    assert_ne!(print(&together, 1), print(&changed, 1));
    assert_ne!(print(&together, 1), print(&together, 2));
    assert_eq!(swapped.to_string().len(), 64);
}

fn open_matrix(path: &Path) -> Result<ReferenceMatrix, String> {
    let shown = path.display().to_string();
    ReferenceMatrix::open("catalogue", path).map_err(|error| error.to_string().replace(&shown, "FILE"))
}

#[test]
fn reference_matrices_are_read_from_files() {
    let directory = tempfile::tempdir().unwrap();
    let halves: Vec<u8> = SIX.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect();
    // A name of odd length puts what follows at any address.
    for (index, name) in ["a", "ab", "abc", "abcd"].into_iter().enumerate() {
        let path = write(
            &directory,
            &index.to_string(),
            &[
                (name, Dtype::I8, &[3], vec![1; 3]),
                ("ids", Dtype::I64, &[2], i64s(&[-7, 1 << 40])),
                ("vectors", Dtype::F32, &[2, 3], f32s(&SIX)),
            ],
        );
        let matrix = open_matrix(&path).unwrap();
        assert_eq!((matrix.vectors(), matrix.ids(), matrix.width()), (&SIX[..], &[-7, 1 << 40][..], 3));
    }
    let path = write(&directory, "h", &[("vectors", Dtype::F16, &[3, 2], halves)]);
    let matrix = open_matrix(&path).unwrap();
    assert_eq!(matrix.ids(), [0, 1, 2]);
    assert_eq!(matrix.vectors(), SIX.map(|x| f16::from_f32(x).to_f32()));
    let refused = |tensors: &[(&str, Dtype, &[usize], Vec<u8>)]| {
        open_matrix(&write(&directory, "refused", tensors)).unwrap_err()
    };
    assert_eq!(refused(&[("ids", Dtype::I64, &[1], i64s(&[0]))]), "tensor `vectors` of FILE: is not there");
    assert_eq!(
        refused(&[("vectors", Dtype::F32, &[6], f32s(&SIX))]),
        "tensor `vectors` of FILE: has shape [6], not [n, d]"
    );
    assert_eq!(
        refused(&[("vectors", Dtype::F32, &[2, 3], f32s(&SIX)), ("ids", Dtype::I64, &[3], i64s(&[0; 3]))]),
        "tensor `ids` of FILE: is I64[3], not I64[2]"
    );
}

#[test]
fn reference_matrices_are_read_from_columns() {
    let item = Arc::new(Field::new("item", DataType::Float32, true));
    let values: ArrayRef = Arc::new(Float32Array::from(SIX.to_vec()));
    let vectors = FixedSizeListArray::try_new(item, 2, values.clone(), None).unwrap();
    let whole = ReferenceMatrix::from_columns("m", &vectors, None).unwrap();
    assert_eq!((whole.width(), whole.ids(), whole.vectors()), (2, &[0, 1, 2][..], &SIX[..]));
    let part = ReferenceMatrix::from_columns("m", &vectors.slice(1, 2), Some(&Int64Array::from(vec![5, 9])));
    let part = part.unwrap();
    assert_eq!((part.ids(), part.vectors()), (&[5, 9][..], &SIX[2..]));
    let refused = |vectors: &dyn arrow::array::Array, ids: Option<&dyn arrow::array::Array>| {
        ReferenceMatrix::from_columns("m", vectors, ids).unwrap_err().to_string()
    };
    assert!(refused(&values, None).contains("of type Float32, not FixedSizeList"));
    assert!(refused(&vectors, Some(&Int32Array::from(vec![1, 2, 3]))).contains("of Int32, not of i64"));
    assert!(refused(&vectors, Some(&Int64Array::from(vec![1, 2]))).contains("2 ids of vectors of 2"));
    assert!(refused(&vectors, Some(&Int64Array::from(vec![Some(1), None, Some(2)]))).contains("have nulls"));
}
