//! How long one request may stand still. A request is given up when nothing of it has moved for a
//! while: when its answer does not begin in time, or the next piece of the answer does not come. So it
//! is progress that bounds a call, not the size of what travels: a file goes in many small requests,
//! and takes as long as each of them gets through.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::error::ErrorKind;
use azure_core::http::{AsyncRawResponse, HttpClient, Request, new_http_client};
use futures::TryStreamExt;

/// The SDK's own client, with little patience.
#[derive(Debug)]
pub(super) struct PatientClient {
    inner: Arc<dyn HttpClient>,
    stall_max: Duration,
}

impl PatientClient {
    /// A client that waits so long for the next sign of life.
    pub(super) fn new(stall_max: Duration) -> PatientClient {
        PatientClient { inner: new_http_client(None), stall_max }
    }
}

#[async_trait]
impl HttpClient for PatientClient {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let stall_max = self.stall_max;
        let answer = within(stall_max, self.inner.execute_request(request)).await?;
        let (status, headers, body) = answer.deconstruct();
        let pieces = futures::stream::try_unfold(body, move |mut body| async move {
            Ok(within(stall_max, body.try_next()).await?.map(|piece| (piece, body)))
        });
        Ok(AsyncRawResponse::new(status, headers, Box::pin(pieces)))
    }
}

async fn within<T>(
    stall_max: Duration,
    work: impl Future<Output = azure_core::Result<T>>,
) -> azure_core::Result<T> {
    match tokio::time::timeout(stall_max, work).await {
        Ok(answer) => answer,
        Err(_) => {
            let said = format!("no answer in {} ms", stall_max.as_millis());
            Err(azure_core::Error::with_message(ErrorKind::Io, said))
        }
    }
}
