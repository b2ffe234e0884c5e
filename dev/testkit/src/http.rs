//! Plain HTTP by hand: enough to look at a metrics page or to put a blob, without a client library in every test.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use url::Url;

use crate::{Error, Result, error::Doing};

const TIMEOUT: Duration = Duration::from_secs(10);

/// An answer to [`http_request`].
#[derive(Debug, Clone)]
pub struct HttpResponse {
    /// The status code, such as 200.
    pub status: u16,
    /// The header lines.
    pub head: String,
    /// The body's bytes.
    pub body: Vec<u8>,
}

impl HttpResponse {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Gets `url` (`http` only) and gives the answer, whatever its status.
///
/// # Errors
/// When there is no server, or it does not answer within ten seconds, or not in HTTP.
pub fn http_get(url: &str) -> Result<HttpResponse> {
    http_request("GET", url, &[], &[])
}

/// Sends one request over a connection of its own and gives the answer, whatever its status.
///
/// # Errors
/// When there is no server, or it does not answer within ten seconds, or not in HTTP.
pub fn http_request(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<HttpResponse> {
    let url = Url::parse(url).doing(|| "reading a URL".into())?;
    // What follows the path may be a signature: it does not belong into a message.
    let what = || format!("{method} {}{}", url.authority(), url.path());
    let answer = exchange(method, &url, headers, body).doing(what)?;
    parse(&answer).ok_or_else(|| Error::new(what(), "the answer is not HTTP"))
}

fn exchange(method: &str, url: &Url, headers: &[(&str, &str)], body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(&*url.socket_addrs(|| None)?)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // HTTP/1.0: the answer ends with the connection and is never chunked.
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut head = format!("{method} {}{query} HTTP/1.0\r\nHost: {}\r\n", url.path(), url.authority());
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("Content-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

fn parse(answer: &[u8]) -> Option<HttpResponse> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(HttpResponse { status, head, body: answer[end + 4..].to_vec() })
}
