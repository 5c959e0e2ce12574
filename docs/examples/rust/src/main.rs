//! A driver of the protocol in Rust, on the standard library alone: it opens SafeTensors files and reads tensors.

mod header;
mod json;
mod sha256;

use header::{Opened, Refusal};
use json::{parse, quoted, Value};
use std::collections::HashMap;
use std::io::{stdin, stdout, BufRead, ErrorKind, Write};

const LONGEST_LINE: usize = 8 * 1024 * 1024;

/// An error of the protocol: code, message, kind, type.
struct Failure(i32, String, &'static str, &'static str);

#[derive(Default)]
struct Driver {
    run_dir: String,
    files: HashMap<u64, (String, Opened)>,
    given: u64,
    written: u64,
    finished: bool,
}

fn main() {
    let mut driver = Driver::default();
    let mut line = Vec::new();
    while !driver.finished {
        line.clear();
        match stdin().lock().read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let answer = driver.answer(&line);
        let mut out = stdout().lock();
        if out
            .write_all(answer.as_bytes())
            .and_then(|()| out.write_all(b"\n"))
            .and_then(|()| out.flush())
            .is_err()
        {
            break;
        }
    }
}

impl Driver {
    fn answer(&mut self, line: &[u8]) -> String {
        let request = std::str::from_utf8(line)
            .map_err(|error| error.to_string())
            .and_then(parse);
        let (id, outcome) = match request {
            _ if line.len() > LONGEST_LINE => (
                "null".into(),
                Err(Failure(
                    -32700,
                    "a line too long".into(),
                    "invalid_argument",
                    "",
                )),
            ),
            Err(cause) => (
                "null".into(),
                Err(Failure(-32700, cause, "invalid_argument", "")),
            ),
            Ok(request) => {
                let id = request
                    .get("id")
                    .and_then(Value::natural)
                    .map_or("null".into(), |id| id.to_string());
                (id, self.dispatch(&request))
            }
        };
        match outcome {
            Ok(result) => format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}"),
            Err(Failure(code, message, kind, kind_of)) => format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":{code},\"message\":{},\"data\":{{\"kind\":\"{kind}\",\"type\":\"{kind_of}\"}}}}}}",
                quoted(&message)
            ),
        }
    }

    fn dispatch(&mut self, request: &Value) -> Result<String, Failure> {
        let empty = Value::Object(Vec::new());
        let params = request.get("params").unwrap_or(&empty);
        match request.get("method").and_then(Value::text).unwrap_or("") {
            "initialize" => self.initialize(params),
            "ping" => match params.get("payload") {
                None => Ok("{\"payload\":\"\"}".into()),
                Some(Value::Text(payload)) => Ok(format!("{{\"payload\":{}}}", quoted(payload))),
                Some(_) => Err(wrong("payload is no string")),
            },
            "shutdown" => {
                self.finished = true;
                Ok("{}".into())
            }
            "file.open" => self.open(text_of(params, "path")?),
            "file.inspect" => self.inspect(params),
            "file.read" => self.read(params),
            "file.close" => {
                let handle = handle_of(params)?;
                self.files
                    .remove(&handle)
                    .map(|_| "{}".into())
                    .ok_or_else(|| closed(handle))
            }
            other => Err(Failure(
                -32601,
                format!("no method {other:?}"),
                "not_supported",
                "",
            )),
        }
    }

    fn initialize(&mut self, params: &Value) -> Result<String, Failure> {
        let protocol = text_of(params, "protocol")?;
        if protocol.split('.').next() != Some("1") {
            return Err(wrong(&format!(
                "protocol {protocol:?} is asked for, this driver speaks 1.0"
            )));
        }
        self.run_dir = text_of(params, "run_dir")?.to_string();
        Ok(format!(
            "{{\"name\":\"rust-example\",\"version\":\"{}\",\"capabilities\":[\"file\",\"source\"],\"language\":\"rust\"}}",
            env!("CARGO_PKG_VERSION")
        ))
    }

    fn open(&mut self, path: &str) -> Result<String, Failure> {
        let opened = Opened::open(path).map_err(|refusal| describe(path, refusal))?;
        self.given += 1;
        self.files.insert(self.given, (path.to_string(), opened));
        Ok(format!("{{\"handle\":{}}}", self.given))
    }

    fn inspect(&mut self, params: &Value) -> Result<String, Failure> {
        let handle = handle_of(params)?;
        let (_, file) = self.files.get(&handle).ok_or_else(|| closed(handle))?;
        let tensors: Vec<String> = file
            .tensors
            .iter()
            .map(|t| {
                format!(
                    "{{\"name\":{},\"dtype\":\"{}\",\"shape\":{:?},\"begin\":{},\"end\":{}}}",
                    quoted(&t.name),
                    t.dtype,
                    t.shape,
                    t.begin,
                    t.end
                )
            })
            .collect();
        let metadata: Vec<String> = file
            .metadata
            .iter()
            .map(|(key, text)| format!("{}:{}", quoted(key), quoted(text)))
            .collect();
        Ok(format!(
            "{{\"tensors\":[{}],\"metadata\":{{{}}}}}",
            tensors.join(","),
            metadata.join(",")
        ))
    }

    fn read(&mut self, params: &Value) -> Result<String, Failure> {
        let (handle, wanted) = (handle_of(params)?, text_of(params, "tensor")?);
        let (path, file) = self.files.get_mut(&handle).ok_or_else(|| closed(handle))?;
        let at = file
            .place(wanted)
            .ok_or_else(|| wrong(&format!("no tensor {wanted:?}")))?;
        let payload = file.read(at).map_err(|refusal| describe(path, refusal))?;
        let (dtype, shape) = (
            file.tensors[at].dtype.clone(),
            file.tensors[at].shape.clone(),
        );
        self.written += 1;
        let target = format!(
            "{}/rust-{}-{}.tensor",
            self.run_dir,
            std::process::id(),
            self.written
        );
        std::fs::write(&target, &payload).map_err(|error| {
            Failure(
                -32000,
                format!("{target}: {error}"),
                "internal",
                "io::Error",
            )
        })?;
        Ok(format!(
            "{{\"path\":{},\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"nbytes\":{},\"sha256\":\"{}\"}}",
            quoted(&target), payload.len(), sha256::hex(&payload)
        ))
    }
}

fn describe(path: &str, refusal: Refusal) -> Failure {
    match refusal {
        Refusal::Invalid(cause) => Failure(
            -32000,
            format!("{path}: {cause}"),
            "invalid_file",
            "InvalidFile",
        ),
        Refusal::Dtype(cause) => Failure(
            -32000,
            format!("{path}: {cause}"),
            "unsupported_dtype",
            "UnknownDtype",
        ),
        Refusal::Io(error) => {
            let kind = match error.kind() {
                ErrorKind::NotFound => "file_not_found",
                ErrorKind::PermissionDenied => "permission_denied",
                _ => "invalid_file",
            };
            Failure(-32000, format!("{path}: {error}"), kind, "io::Error")
        }
    }
}

fn wrong(cause: &str) -> Failure {
    Failure(-32602, cause.to_string(), "invalid_argument", "")
}

fn closed(handle: u64) -> Failure {
    Failure(
        -32000,
        format!("handle {handle} is closed or was never opened"),
        "closed_handle",
        "ClosedHandle",
    )
}

fn text_of<'a>(params: &'a Value, name: &str) -> Result<&'a str, Failure> {
    params
        .get(name)
        .and_then(Value::text)
        .ok_or_else(|| wrong(&format!("{name} is no string")))
}

fn handle_of(params: &Value) -> Result<u64, Failure> {
    params
        .get("handle")
        .and_then(Value::natural)
        .ok_or_else(|| wrong("handle is no whole number"))
}
