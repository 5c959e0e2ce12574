//! The header of a SafeTensors file, with every rule of the format checked before a byte of data is read.

use crate::json::{parse, Value};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Error, Read, Seek, SeekFrom};

const LONGEST: u64 = 100_000_000;

/// One tensor: its range is relative to the data section.
pub struct Tensor {
    pub name: String,
    pub dtype: String,
    pub shape: Vec<u64>,
    pub begin: u64,
    pub end: u64,
}

/// An open file with its tensors in the header's order.
pub struct Opened {
    file: File,
    data: u64,
    pub tensors: Vec<Tensor>,
    places: HashMap<String, usize>,
    pub metadata: Vec<(String, String)>,
}

/// Why a file is not opened or read: not there, not ours to read, or not what it should be.
pub enum Refusal {
    Io(Error),
    Invalid(String),
    Dtype(String),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::Io(error)
    }
}

fn invalid<T>(cause: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Invalid(cause.into()))
}

fn bits(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" | "F8_E4M3FNUZ"
        | "F8_E5M2FNUZ" => 8,
        "U16" | "I16" | "F16" | "BF16" => 16,
        "U32" | "I32" | "F32" => 32,
        "U64" | "I64" | "F64" | "C64" => 64,
        _ => return None,
    })
}

impl Opened {
    /// Opens a file and checks its header.
    pub fn open(path: &str) -> Result<Opened, Refusal> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        if size < 8 {
            return invalid(format!(
                "it has {size} bytes, and the header's length alone takes 8"
            ));
        }
        let mut prefix = [0; 8];
        file.read_exact(&mut prefix)?;
        let length = u64::from_le_bytes(prefix);
        if length > LONGEST || length > size - 8 {
            return invalid(format!("a header of {length} bytes in a file of {size}"));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header)?;
        let Ok(text) = String::from_utf8(header) else {
            return invalid("the header is not UTF-8");
        };
        if !text.starts_with('{') {
            return invalid("the header does not begin with {");
        }
        let Value::Object(members) = parse(&text).map_err(Refusal::Invalid)? else {
            return invalid("no JSON object");
        };
        let mut opened = Opened {
            file,
            data: 8 + length,
            tensors: Vec::new(),
            places: HashMap::new(),
            metadata: Vec::new(),
        };
        for (name, value) in members {
            if name == "__metadata__" {
                opened.metadata = strings(value)?;
            } else {
                let tensor = entry(name, &value)?;
                opened.add(tensor);
            }
        }
        opened.covers(size - 8 - length)?;
        Ok(opened)
    }

    /// Where a tensor stands in `tensors`.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.places.get(name).copied()
    }

    /// A name given twice means the last; a header may have a hundred thousand names, so each is looked up once.
    fn add(&mut self, tensor: Tensor) {
        match self.place(&tensor.name) {
            Some(at) => self.tensors[at] = tensor,
            None => {
                self.places.insert(tensor.name.clone(), self.tensors.len());
                self.tensors.push(tensor);
            }
        }
    }

    /// Ranges must cover the data without hole or overlap.
    fn covers(&self, data: u64) -> Result<(), Refusal> {
        let mut ranges: Vec<_> = self
            .tensors
            .iter()
            .map(|t| (t.begin, t.end, &t.name))
            .collect();
        ranges.sort();
        let mut at = 0;
        for (begin, end, name) in ranges {
            if begin != at {
                return invalid(format!("tensor {name:?} begins at {begin}, not at {at}"));
            }
            at = end;
        }
        if at == data {
            Ok(())
        } else {
            invalid(format!("tensors end at {at}, the data at {data}"))
        }
    }

    /// The bytes of one tensor.
    pub fn read(&mut self, tensor: usize) -> Result<Vec<u8>, Refusal> {
        let (begin, end) = (self.tensors[tensor].begin, self.tensors[tensor].end);
        let left = self.file.metadata()?.len();
        if self.data + end > left {
            return invalid(format!("the file was cut to {left} bytes"));
        }
        self.file.seek(SeekFrom::Start(self.data + begin))?;
        let mut payload = vec![0; (end - begin) as usize];
        self.file.read_exact(&mut payload)?;
        Ok(payload)
    }
}

fn strings(value: Value) -> Result<Vec<(String, String)>, Refusal> {
    let Value::Object(members) = value else {
        return invalid("__metadata__ is no object");
    };
    let mut found: Vec<(String, String)> = Vec::new();
    for (key, value) in members {
        let Value::Text(text) = value else {
            return invalid(format!("__metadata__ {key:?} is no string"));
        };
        found.retain(|(known, _)| *known != key);
        found.push((key, text));
    }
    Ok(found)
}

fn naturals(name: &str, field: &str, value: &Value) -> Result<Vec<u64>, Refusal> {
    let numbers = match value {
        Value::List(items) => items.iter().map(Value::natural).collect(),
        _ => None,
    };
    match numbers {
        Some(numbers) => Ok(numbers),
        None => invalid(format!(
            "tensor {name:?}: {field} is no list of whole numbers from 0"
        )),
    }
}

fn entry(name: String, value: &Value) -> Result<Tensor, Refusal> {
    let Value::Object(members) = value else {
        return invalid(format!("tensor {name:?} is no object"));
    };
    for field in ["dtype", "shape", "data_offsets"] {
        let times = members.iter().filter(|(key, _)| key == field).count();
        if times != 1 {
            return invalid(format!("tensor {name:?} has {times} fields {field}"));
        }
    }
    let field = |key: &str| value.get(key).unwrap_or(&Value::Null);
    let Some(dtype) = field("dtype").text() else {
        return invalid(format!("tensor {name:?}: dtype is no string"));
    };
    let Some(item) = bits(dtype) else {
        return Err(Refusal::Dtype(format!(
            "tensor {name:?}: dtype {dtype:?} is unknown"
        )));
    };
    let shape = naturals(&name, "shape", field("shape"))?;
    let offsets = naturals(&name, "data_offsets", field("data_offsets"))?;
    let [begin, end] = offsets[..] else {
        return invalid(format!("tensor {name:?}: data_offsets are not two"));
    };
    let size = shape
        .iter()
        .try_fold(1u64, |product, dim| product.checked_mul(*dim))
        .and_then(|n| n.checked_mul(item));
    match size {
        Some(size) if begin <= end && size % 8 == 0 && size / 8 == end - begin => Ok(Tensor {
            name,
            dtype: dtype.to_string(),
            shape,
            begin,
            end,
        }),
        _ => invalid(format!(
            "tensor {name:?}: {dtype} of shape {shape:?} does not take the bytes {begin} to {end}"
        )),
    }
}
