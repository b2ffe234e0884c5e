//! The gRPC service: a call is counted, its request's length is read, room is taken for it, and only
//! then the request is read, decoded and given to the router.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body as _, Frame};
use thalweg_proto::prism::prism_server::{Prism, PrismServer};
use thalweg_proto::prism::{ProduceBatchRequest, ProduceBatchResponse};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Request, Response, Status};

use super::admission::{Admission, Refused};
use super::router::Router;

/// What a message may hold beside the records that count.
const FRAMING_BYTES: usize = 64 << 10;
/// What stands before a message: a flag and its length (gRPC over HTTP/2, Length-Prefixed-Message).
const PREFIX_BYTES: usize = 5;

/// The router behind admission.
pub(super) fn admitted_service(router: Router, admission: Admission) -> Admitted {
    let request_bytes = router.config().limits.request_bytes.saturating_add(FRAMING_BYTES);
    let inner = PrismServer::new(Routed { router }).max_decoding_message_size(request_bytes);
    Admitted { inner, admission, request_bytes }
}

/// Serves calls that were admitted.
#[derive(Clone)]
pub(super) struct Admitted {
    inner: PrismServer<Routed>,
    admission: Admission,
    /// A request that says it is longer is not read; the decoder refuses it.
    request_bytes: usize,
}

impl NamedService for Admitted {
    const NAME: &'static str = <PrismServer<Routed> as NamedService>::NAME;
}

impl Service<http::Request<Body>> for Admitted {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Admitted { mut inner, admission, request_bytes } = self.clone();
        Box::pin(async move {
            let _call = match admission.call() {
                Ok(call) => call,
                Err(refused) => return Ok(refusal(refused).into_http()),
            };
            let client = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
            let (parts, body) = request.into_parts();
            let body = match Begun::read(body).await {
                Ok(body) => body,
                Err(status) => return Ok(status.into_http()),
            };
            let bytes = body.length.filter(|&length| length <= request_bytes).unwrap_or(0);
            // Held until the answer is made.
            let _permit = match admission.take(client, bytes).await {
                Ok(permit) => permit,
                Err(refused) => return Ok(refusal(refused).into_http()),
            };
            inner.call(http::Request::from_parts(parts, Body::new(body))).await
        })
    }
}

fn refusal(refused: Refused) -> Status {
    Status::resource_exhausted(match refused {
        Refused::Calls(limit) => format!("{limit} calls are under way; try again later"),
        Refused::Room(limit) => {
            format!(
                "requests of {limit} bytes are under way, or this client has its share of them; slow down"
            )
        }
    })
}

/// A body of which the beginning was read.
struct Begun {
    first: Bytes,
    rest: Body,
    /// The message's length, when the body did not end before it.
    length: Option<usize>,
}

impl Begun {
    /// Reads up to the message's length, and what came with it.
    async fn read(mut body: Body) -> Result<Begun, Status> {
        let mut first = BytesMut::new();
        while first.len() < PREFIX_BYTES {
            match std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                Some(frame) => first.extend_from_slice(&frame?.into_data().unwrap_or_default()),
                None => break,
            }
        }
        let length = first.get(1..PREFIX_BYTES).map(|mut length| length.get_u32() as usize);
        Ok(Begun { first: first.freeze(), rest: body, length })
    }
}

impl http_body::Body for Begun {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.rest).poll_frame(cx);
        }
        Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.first)))))
    }
}

/// The router as the generated service.
struct Routed {
    router: Router,
}

#[tonic::async_trait]
impl Prism for Routed {
    async fn produce_batch(
        &self,
        request: Request<ProduceBatchRequest>,
    ) -> Result<Response<ProduceBatchResponse>, Status> {
        let ProduceBatchRequest { topic, records } = request.into_inner();
        let limit = self.router.config().limits.records;
        if topic.is_empty() {
            return Err(Status::invalid_argument("the request names no topic"));
        }
        if records.len() > limit {
            let message = format!("the request has {} records; the limit is {limit}", records.len());
            return Err(Status::invalid_argument(message));
        }
        let records: Arc<[_]> = records.into();
        let results = self.router.produce(&topic, records).await;
        Ok(Response::new(ProduceBatchResponse { results }))
    }
}
