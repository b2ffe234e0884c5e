//! Which device a task computes on: what the user asked for against what the machine has.
//!
//! The decision is a pure function over what was found, so that every case has a test on a machine
//! without a GPU; [`DeviceChoice::open`] looks and carries it out.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Backend, CpuBackend, Error, Result};

/// What a job's configuration says: `auto`, `cpu`, `cuda` or `cuda:N`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// A CUDA device where there is one, else the CPU, with a warning.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA devices, shared out among the tasks: task `i` has device `i % n`. An error where
    /// there is none.
    Cuda,
    /// One CUDA device, by its ordinal, for every task.
    CudaOrdinal(usize),
}

/// A task's backend, and what its log should say about the choice.
pub struct Opened {
    /// What computes. Tasks of one process share a CUDA device's.
    pub backend: Arc<dyn Backend>,
    /// For the log, at a level that one reads: `auto` fell back to the CPU.
    pub warning: Option<String>,
}

impl DeviceChoice {
    /// Opens what task number `task` computes on. `auto` also falls back to the CPU from a device that
    /// is there but cannot be opened.
    ///
    /// # Errors
    /// [`Error::Device`] when a CUDA device is asked for that is not there or cannot be opened.
    pub fn open(self, task: usize) -> Result<Opened> {
        let found = match self {
            DeviceChoice::Cpu => Found::Nothing("not looked for".to_owned()),
            _ => found(),
        };
        match decide(self, &found, task)? {
            Decision::Cpu { warning } => Ok(Opened { backend: Arc::new(CpuBackend::new()), warning }),
            Decision::Cuda { ordinal } => match open_cuda(ordinal) {
                Ok(backend) => Ok(Opened { backend, warning: None }),
                Err(error) if self == DeviceChoice::Auto => {
                    let warning = Some(fallback_warning(&error.to_string()));
                    Ok(Opened { backend: Arc::new(CpuBackend::new()), warning })
                }
                Err(error) => Err(error),
            },
        }
    }
}

#[cfg(feature = "cuda")]
fn found() -> Found {
    match crate::cuda::device::CudaBackend::devices() {
        Ok(devices) => Found::Devices(devices),
        Err(reason) => Found::Nothing(reason),
    }
}

#[cfg(feature = "cuda")]
fn open_cuda(ordinal: usize) -> Result<Arc<dyn Backend>> {
    Ok(crate::cuda::device::CudaBackend::shared(ordinal)?)
}

#[cfg(not(feature = "cuda"))]
fn found() -> Found {
    Found::Nothing("this binary was built without the feature `cuda`".to_owned())
}

#[cfg(not(feature = "cuda"))]
fn open_cuda(ordinal: usize) -> Result<Arc<dyn Backend>> {
    Err(Error::Device {
        device: format!("cuda:{ordinal}"),
        reason: "this binary was built without the feature `cuda`".to_owned(),
    })
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<DeviceChoice> {
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda),
            _ => match text.strip_prefix("cuda:").map(usize::from_str) {
                Some(Ok(ordinal)) => Ok(DeviceChoice::CudaOrdinal(ordinal)),
                _ => Err(Error::input(
                    "device",
                    format!("`{text}` is none of `auto`, `cpu`, `cuda` and `cuda:N`"),
                )),
            },
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = Error;

    fn try_from(text: String) -> Result<DeviceChoice> {
        text.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> String {
        choice.to_string()
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Cuda => f.write_str("cuda"),
            DeviceChoice::CudaOrdinal(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

/// What was found on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// This many CUDA devices, at least one.
    Devices(usize),
    /// None, and why: no driver, no device, built without.
    Nothing(String),
}

/// What a task computes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The CPU; with a warning where a device would have been taken.
    Cpu {
        /// For the log, at a level that one reads.
        warning: Option<String>,
    },
    /// This CUDA device.
    Cuda {
        /// The driver's number.
        ordinal: usize,
    },
}

/// What task number `task` computes on.
///
/// # Errors
/// When a CUDA device is asked for that is not there.
pub fn decide(choice: DeviceChoice, found: &Found, task: usize) -> Result<Decision> {
    match (choice, found) {
        (DeviceChoice::Cpu, _) => Ok(Decision::Cpu { warning: None }),
        (DeviceChoice::Auto, Found::Nothing(reason)) => {
            Ok(Decision::Cpu { warning: Some(fallback_warning(reason)) })
        }
        (DeviceChoice::Auto | DeviceChoice::Cuda, Found::Devices(devices)) if *devices > 0 => {
            Ok(Decision::Cuda { ordinal: task % devices })
        }
        (DeviceChoice::Auto, Found::Devices(_)) => {
            Ok(Decision::Cpu { warning: Some(fallback_warning("there is no device")) })
        }
        (DeviceChoice::CudaOrdinal(ordinal), Found::Devices(devices)) if ordinal < *devices => {
            Ok(Decision::Cuda { ordinal })
        }
        (_, Found::Devices(devices)) => Err(Error::Device {
            device: choice.to_string(),
            reason: format!("this machine has {devices} CUDA devices, numbered from 0"),
        }),
        (_, Found::Nothing(reason)) => {
            Err(Error::Device { device: choice.to_string(), reason: reason.clone() })
        }
    }
}

fn fallback_warning(reason: &str) -> String {
    format!(
        "device `auto` FALLS BACK TO THE CPU, which is slower than a GPU by an order of magnitude: {reason}. \
         Say `device: cpu` to mean it, or `device: cuda` to be refused instead"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: Found = Found::Devices(2);

    fn nothing() -> Found {
        Found::Nothing("no driver".into())
    }

    #[test]
    fn each_choice_reads_back_as_it_was_written_and_others_are_refused() {
        for text in ["auto", "cpu", "cuda", "cuda:0", "cuda:17"] {
            let choice: DeviceChoice = text.parse().unwrap();
            assert_eq!(choice.to_string(), text);
            assert_eq!(serde_json::from_str::<DeviceChoice>(&format!("\"{text}\"")).unwrap(), choice);
        }
        for text in ["", "gpu", "cuda:", "cuda:-1", "CUDA", "cuda:1,2"] {
            let error = text.parse::<DeviceChoice>().unwrap_err().to_string();
            assert!(error.contains("`cuda:N`"), "{error}");
        }
    }

    #[test]
    fn tasks_are_shared_out_among_the_devices() {
        let ordinal = |choice, task| match decide(choice, &TWO, task).unwrap() {
            Decision::Cuda { ordinal } => ordinal,
            cpu => panic!("{cpu:?}"),
        };
        for choice in [DeviceChoice::Auto, DeviceChoice::Cuda] {
            assert_eq!([0, 1, 2, 3].map(|task| ordinal(choice, task)), [0, 1, 0, 1]);
        }
        assert_eq!([0, 1, 2].map(|task| ordinal(DeviceChoice::CudaOrdinal(1), task)), [1, 1, 1]);
    }

    #[test]
    fn auto_falls_back_loudly_and_nothing_else_falls_back() {
        let Decision::Cpu { warning: Some(warning) } = decide(DeviceChoice::Auto, &nothing(), 0).unwrap()
        else {
            panic!("no fallback");
        };
        assert!(warning.contains("FALLS BACK TO THE CPU") && warning.contains("no driver"), "{warning}");
        assert!(decide(DeviceChoice::Auto, &Found::Devices(0), 0).is_ok());
        for choice in [DeviceChoice::Cuda, DeviceChoice::CudaOrdinal(0)] {
            let error = decide(choice, &nothing(), 0).unwrap_err().to_string();
            assert_eq!(error, format!("device {choice}: no driver"));
            assert!(decide(choice, &Found::Devices(0), 0).is_err());
        }
        let error = decide(DeviceChoice::CudaOrdinal(2), &TWO, 0).unwrap_err().to_string();
        assert_eq!(error, "device cuda:2: this machine has 2 CUDA devices, numbered from 0");
    }

    #[test]
    fn what_is_opened_is_what_was_decided_on_this_machine() {
        let cpu = DeviceChoice::Cpu.open(0).unwrap();
        assert!(cpu.backend.device().starts_with("cpu") && cpu.warning.is_none());
        let auto = DeviceChoice::Auto.open(0).unwrap();
        // With a warning it is the CPU, without one it is not.
        assert_eq!(auto.backend.device().starts_with("cpu"), auto.warning.is_some());
        assert_eq!(DeviceChoice::Cuda.open(0).is_err(), auto.warning.is_some());
    }

    #[test]
    fn the_cpu_is_taken_without_a_word_where_it_is_asked_for() {
        for found in [TWO, nothing()] {
            let decision = decide(DeviceChoice::Cpu, &found, 3).unwrap();
            assert_eq!(decision, Decision::Cpu { warning: None });
        }
    }
}
