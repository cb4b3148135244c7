//! The fields of a form, url-encoded or multipart.

use std::collections::HashMap;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::header;

use crate::wire::mended;

/// The fields of a form. Of two with the same name the first counts.
#[derive(Debug, Default)]
pub(super) struct Form(HashMap<String, String>);

/// The body is over the bound, or broke off.
#[derive(Debug)]
pub(super) struct TooLarge;

impl Form {
    /// Reads the body. What is no form has no fields, as with the original.
    pub(super) async fn read(request: Request, limit: usize) -> Result<Form, TooLarge> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match kind.as_str() {
            "application/x-www-form-urlencoded" => url_encoded(request.into_body(), limit).await,
            "multipart/form-data" => multipart(request).await,
            _ => Ok(Form::default()),
        }
    }

    /// The value of a field; empty when it is missing.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// Takes the value of a field out.
    pub(super) fn take(&mut self, name: &str) -> String {
        self.0.remove(name).unwrap_or_default()
    }
}

async fn url_encoded(body: Body, limit: usize) -> Result<Form, TooLarge> {
    let body = to_bytes(body, limit).await.map_err(|_| TooLarge)?;
    let mut form = Form::default();
    for pair in body.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()) {
        let mut halves = pair.splitn(2, |&byte| byte == b'=');
        let mut half = || decoded(halves.next().unwrap_or_default());
        let (name, value) = (half(), half());
        form.0.entry(name).or_insert(value);
    }
    Ok(form)
}

fn decoded(text: &[u8]) -> String {
    if !text.iter().fold(false, |coded, &byte| coded | (byte == b'+') | (byte == b'%')) {
        return mended(text).into_owned();
    }
    let spaced: Vec<u8> = text.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
    let bytes: Vec<u8> = percent_encoding::percent_decode(&spaced).collect();
    mended(&bytes).into_owned()
}

async fn multipart(request: Request) -> Result<Form, TooLarge> {
    let mut form = Form::default();
    let Ok(mut parts) = Multipart::from_request(request, &()).await else { return Ok(form) };
    loop {
        let part = match parts.next_field().await {
            Ok(Some(part)) => part,
            Ok(None) => return Ok(form),
            Err(error) if error.status().as_u16() == 413 => return Err(TooLarge),
            Err(_) => return Ok(form),
        };
        let name = part.name().unwrap_or_default().to_owned();
        let is_file = part.file_name().is_some();
        let value = part.bytes().await.map_err(|_| TooLarge)?;
        if !is_file {
            form.0.entry(name).or_insert_with(|| mended(&value).into_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(kind: &str, body: &str) -> Request {
        Request::builder().header("content-type", kind).body(Body::from(body.to_owned())).unwrap()
    }

    #[tokio::test]
    async fn url_encoded_fields() {
        let body = "a=1&b=x+y%26%e6%9c%a8&a=2&empty=&=&c&bad=%zz%ff";
        let kind = "application/x-www-form-urlencoded; charset=utf-8";
        let form = Form::read(request(kind, body), 1000).await.unwrap();
        assert_eq!((form.get("a"), form.get("b"), form.get("empty")), ("1", "x y&木", ""));
        assert_eq!((form.get("c"), form.get("bad"), form.get("none")), ("", "%zz\u{fffd}", ""));
        assert!(Form::read(request(kind, body), 10).await.is_err());
    }

    #[tokio::test]
    async fn multipart_fields_without_files() {
        let body = concat!(
            "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\none\r\n",
            "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\nfile\r\n--b--\r\n"
        );
        let form = Form::read(request("multipart/form-data; boundary=b", body), 1000).await.unwrap();
        assert_eq!((form.get("a"), form.get("f")), ("one", ""));
    }

    #[tokio::test]
    async fn anything_else_has_no_fields() {
        let form = Form::read(request("application/json", "{\"a\":1}"), 1000).await.unwrap();
        assert_eq!(form.get("a"), "");
    }
}
