//! Azurite, the emulator of Azure Blob Storage, and a key to it: an account SAS signed with the emulator's account key.

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use url::form_urlencoded;

use crate::{
    Error, Result,
    error::Doing,
    http_request,
    service::{Service, pair},
    shared::Shared,
};

/// The account that every Azurite has.
pub const AZURITE_ACCOUNT: &str = "devstoreaccount1";

/// That account's key: published with the emulator, the same everywhere, and no secret.
pub const AZURITE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// The service version of the signature; from 2020-12-06 on, the encryption scope is part of what is signed.
const SAS_VERSION: &str = "2023-11-03";
const SAS_HOURS: i64 = 12;

/// A running Azurite with its blobs in memory. Dropped, it is killed.
#[derive(Debug)]
pub struct Azurite {
    endpoint: String,
    service: Service,
}

impl Azurite {
    /// Starts one on a free port.
    ///
    /// # Errors
    /// When it cannot be fetched or does not start.
    pub fn start() -> Result<Self> {
        let service = Service::new("azurite", "azurite");
        let endpoint = pair(&service.start(&[])?, "blob")?;
        Ok(Azurite { endpoint, service })
    }

    /// The one that this process's tests share; the first to ask starts it.
    ///
    /// # Errors
    /// As [`Azurite::start`].
    pub fn shared() -> Result<&'static Self> {
        static SHARED: Shared<Azurite> = Shared::new();
        SHARED.get("azurite", Azurite::start)
    }

    /// The blob endpoint, with the account in its path: `http://127.0.0.1:PORT/devstoreaccount1`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Kills it. Its blobs are gone; [`Azurite::restart`] brings it back, empty, at the same endpoint.
    ///
    /// # Errors
    /// When the script fails.
    pub fn kill(&self) -> Result<()> {
        self.service.run("kill", &[]).map(drop)
    }

    /// Starts it again after [`Azurite::kill`].
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&self) -> Result<()> {
        self.service.start(&[]).map(drop)
    }

    /// A query string that allows everything on the account's blobs for some hours: an [account SAS].
    ///
    /// [account SAS]: https://learn.microsoft.com/rest/api/storageservices/create-account-sas
    ///
    /// # Errors
    /// None that should come; the key is a constant.
    pub fn account_sas(&self) -> Result<String> {
        let instant = |hours| (Utc::now() + TimeDelta::hours(hours)).format("%Y-%m-%dT%H:%M:%SZ").to_string();
        let (permissions, services, resources, protocols) = ("rwdlacupitfx", "b", "sco", "https,http");
        let (start, expiry) = (instant(-1), instant(SAS_HOURS));
        // In this order; after the expiry an IP range, at the end an encryption scope, both empty.
        let to_sign = format!(
            "{AZURITE_ACCOUNT}\n{permissions}\n{services}\n{resources}\n{start}\n{expiry}\n\n{protocols}\n{SAS_VERSION}\n\n"
        );
        let key = BASE64_STANDARD.decode(AZURITE_KEY).doing(|| "decoding the account's key".into())?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).doing(|| "taking the account's key".into())?;
        mac.update(to_sign.as_bytes());
        Ok(form_urlencoded::Serializer::new(String::new())
            .append_pair("sv", SAS_VERSION)
            .append_pair("ss", services)
            .append_pair("srt", resources)
            .append_pair("sp", permissions)
            .append_pair("st", &start)
            .append_pair("se", &expiry)
            .append_pair("spr", protocols)
            .append_pair("sig", &BASE64_STANDARD.encode(mac.finalize().into_bytes()))
            .finish())
    }

    /// The container's URL with an account SAS: `http://127.0.0.1:PORT/devstoreaccount1/CONTAINER?sv=…`.
    ///
    /// # Errors
    /// As [`Azurite::account_sas`].
    pub fn account_sas_url(&self, container: &str) -> Result<String> {
        Ok(format!("{}/{container}?{}", self.endpoint, self.account_sas()?))
    }

    /// Makes a container; no error if it is there.
    ///
    /// # Errors
    /// When Azurite does not answer, or refuses.
    pub fn create_container(&self, container: &str) -> Result<()> {
        let url = format!("{}&restype=container", self.account_sas_url(container)?);
        let answer = http_request("PUT", &url, &[("x-ms-version", SAS_VERSION)], &[])?;
        match answer.status {
            201 | 409 => Ok(()),
            status => Err(Error::new(
                format!("making the container {container}"),
                format!("{status}: {}", answer.text()),
            )),
        }
    }
}
