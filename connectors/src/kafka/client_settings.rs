//! The settings of a client of librdkafka, and what of them no text may show (F14).
//!
//! What a topology says of a cluster goes to librdkafka as it is. Nobody knows which of its settings
//! are secret, least of all when a name is misspelt, and librdkafka repeats in its errors and logs
//! what it was given. So all of them are secret, and whatever the client says passes through
//! [`ClientSettings::redaction`] before it becomes a text of ours.

use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, ClientContext};
use thalweg_engine::{Error, Redaction, Result, Secret};

/// The settings of a client that is to be made.
pub(crate) struct ClientSettings {
    config: ClientConfig,
    given: Vec<Secret>,
}

impl ClientSettings {
    /// None but librdkafka's own.
    pub fn new() -> Self {
        ClientSettings { config: ClientConfig::new(), given: Vec::new() }
    }

    /// Sets what is ours to say; it may be shown.
    pub fn set(&mut self, name: &str, value: impl Into<String>) -> &mut Self {
        self.config.set(name, value);
        self
    }

    /// Sets what somebody else said; it is not shown.
    pub fn give(&mut self, name: &str, value: Secret) {
        self.config.set(name, value.reveal());
        self.given.push(value);
    }

    /// Whether a setting is set.
    pub fn has(&self, name: &str) -> bool {
        self.config.get(name).is_some()
    }

    /// Takes a setting away.
    pub fn remove(&mut self, name: &str) {
        self.config.remove(name);
    }

    /// What librdkafka is given. It has no way to a text of ours: its own `Debug` shows all of it.
    pub fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// Hides the settings in what the client says.
    pub fn redaction(&self) -> Redaction {
        Redaction::new(self.given.iter().cloned())
    }

    /// Makes a client that calls `context` back.
    ///
    /// # Errors
    /// A user error that names the setting which librdkafka refuses, without its value.
    pub fn create<C: ClientContext, T: FromClientConfigAndContext<C>>(&self, context: C) -> Result<T> {
        self.config.create_with_context(context).map_err(|error| self.refused(&error))
    }

    /// Why librdkafka makes no client of the settings.
    pub fn refused(&self, error: &KafkaError) -> Error {
        let redaction = self.redaction();
        match error {
            // What it displays ends with the value.
            KafkaError::ClientConfig(_, why, name, _) => {
                Error::user(format!("librdkafka refuses the setting {name}: {}", redaction.apply(why)))
            }
            other => Error::user(format!(
                "librdkafka refuses the settings: {}",
                redaction.apply(&other.to_string())
            )),
        }
    }
}

/// A client's callbacks that log what it says, redacted.
pub(crate) struct RedactedLog {
    /// Hides the client's settings.
    pub redaction: Redaction,
}

impl RedactedLog {
    /// Logs a line of the client's.
    pub fn line(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        let line = self.redaction.apply(line);
        tracing::debug!(?level, facility, %line, "librdkafka");
    }
}

impl ClientContext for RedactedLog {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let reason = self.redaction.apply(reason);
        tracing::debug!(%error, %reason, "Kafka client");
    }

    /// They name the client, and nobody reads them here.
    fn stats_raw(&self, _: &[u8]) {}
}

impl ConsumerContext for RedactedLog {}

#[cfg(test)]
#[allow(unsafe_code)]
mod tests {
    use std::collections::BTreeSet;
    use std::ffi::CString;
    use std::sync::Arc;

    use rdkafka::producer::BaseProducer;
    use rdkafka_sys as sys;
    use thalweg_engine::operator::Waker;

    use super::*;
    use crate::kafka::Librdkafka;
    use crate::kafka::client::KafkaClient;
    use crate::kafka::deliveries::{Deliveries, DeliveryContext};
    use crate::kafka::settings::{ConsumerNeeds, producer_config};
    use crate::kafka::topology::{Cluster, Setting};

    const CANARY: &str = "hush-canary";

    /// All settings that librdkafka knows, out of the table that it prints.
    fn all_settings() -> Vec<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = CString::new(file.path().as_os_str().as_encoded_bytes()).unwrap();
        // SAFETY: the path is a live C string, and the stream is closed after it was written.
        unsafe {
            let stream = libc::fopen(path.as_ptr(), c"w".as_ptr());
            assert!(!stream.is_null());
            sys::rd_kafka_conf_properties_show(stream);
            libc::fclose(stream);
        }
        let table = std::fs::read_to_string(file.path()).unwrap();
        let rows = table.lines().filter_map(|line| line.split_once('|'));
        let settings = rows.filter(|(_, rest)| ["C", "P", "*"].iter().any(|of| rest.trim().starts_with(of)));
        let names: BTreeSet<_> = settings.map(|(name, _)| name.trim().to_string()).collect();
        names.into_iter().collect()
    }

    /// What the clients of source, probe and sink say of the settings that librdkafka refuses.
    fn said(cluster: &Cluster) -> Vec<String> {
        let needs = ConsumerNeeds { queue_bytes: 8 << 20, brokers: 1, end_of_partition: true };
        let consumer = Librdkafka.consumer("east", cluster, needs, &Waker::new(|| {})).err();
        let probe = Librdkafka.metadata(cluster).err();
        let settings = producer_config(cluster, 8 << 20).unwrap();
        let log = RedactedLog { redaction: settings.redaction() };
        let deliveries = Arc::new(Deliveries::new(&Waker::new(|| {})));
        let context = DeliveryContext { cluster: "east".into(), log, deliveries };
        let producer = settings.create::<_, BaseProducer<_>>(context).err();
        [consumer, probe, producer].into_iter().flatten().map(|error| format!("{error} {error:?}")).collect()
    }

    #[test]
    fn f14_no_setting_that_librdkafka_knows_or_does_not_know_shows_its_value_when_it_is_refused() {
        let mut names = all_settings();
        assert!(names.len() > 150 && names.iter().any(|name| name == "sasl.password"), "{names:?}");
        names.extend(["sasl.pasword", "sasl.mecanism", "no.such.setting"].map(String::from));
        let mut refused = 0;
        for name in names {
            for protocol in [None, Some("ssl"), Some("sasl_plaintext")] {
                let cluster = Cluster::at("127.0.0.1:1").with(&name, Setting::given(CANARY));
                let cluster = match protocol {
                    Some(protocol)
                        if name != "security.protocol"
                            && (name.starts_with("s") || name.starts_with("e")) =>
                    {
                        cluster.with("security.protocol", Setting::given(protocol))
                    }
                    Some(_) => continue,
                    None => cluster,
                };
                for said in said(&cluster) {
                    assert!(!said.contains("hush"), "{name}: {said}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 200, "{refused} were refused");
        let misspelt = said(&Cluster::at("127.0.0.1:1").with("sasl.pasword", Setting::given(CANARY)));
        assert_eq!(misspelt.len(), 3, "{misspelt:?}");
        assert!(misspelt.iter().all(|said| said.contains("the setting sasl.pasword")), "{misspelt:?}");
    }
}
