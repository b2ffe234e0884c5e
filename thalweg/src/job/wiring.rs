//! Who feeds whom: finds unknown inputs, circles and what leads nowhere; puts steps into the
//! order in which they can be built. Knows names only.

use std::collections::{BTreeMap, BTreeSet};

use thalweg_operators::expression::did_you_mean;
use thalweg_operators::tensor::OnBadRow;

use crate::config::Checker;

use super::spec::{EventTimeSpec, InputSpec, JobSpec, OnDecodeErrorSpec, SourceKind, StepKind};
use super::transform_spec::TransformSpec;

/// The indexes of the steps in an order in which each comes after what feeds it; the order of the
/// file where that is free. Steps in a circle, or behind an unknown input, are left out and
/// reported.
pub fn step_order(checker: &Checker<'_>, job: &JobSpec) -> Vec<usize> {
    let outputs = side_outputs(job);
    for (_, inputs) in consumers(job) {
        for input in inputs {
            check_input(checker, job, &outputs, input);
        }
    }
    report_unused(checker, job);
    let mut done: BTreeSet<&str> = job.sources.iter().map(|source| source.name.as_str()).collect();
    let mut order = Vec::new();
    loop {
        let next = job.steps.iter().enumerate().find(|(index, step)| {
            !order.contains(index) && step.spec.inputs.iter().all(|input| done.contains(input.from.as_str()))
        });
        let Some((index, step)) = next else { break };
        done.insert(&step.name);
        order.push(index);
    }
    report_circles(checker, job, &order);
    order
}

/// The side outputs of each source and step, by name.
fn side_outputs(job: &JobSpec) -> BTreeMap<&str, &'static [&'static str]> {
    let sources = job.sources.iter().map(|source| {
        let has_dead_letters = source.spec.on_decode_error == OnDecodeErrorSpec::DeadLetter
            && !matches!(source.spec.kind, SourceKind::Generator(_));
        let has_ahead = source.spec.event_time.as_ref().is_some_and(EventTimeSpec::puts_ahead_aside);
        let outputs: &[&str] = match (has_dead_letters, has_ahead) {
            (true, true) => &["dead_letters", "ahead"],
            (true, false) => &["dead_letters"],
            (false, true) => &["ahead"],
            (false, false) => &[],
        };
        (source.name.as_str(), outputs)
    });
    let steps = job.steps.iter().map(|step| {
        let outputs: &[&str] = match step.spec.kind {
            StepKind::Window { .. } => &["late"],
            StepKind::Watermarks(ref time) if time.puts_ahead_aside() => &["ahead"],
            StepKind::Embed(ref embed) if has_bad_rows(&embed.transform) => &["bad_rows"],
            StepKind::Nearest(ref nearest) if has_bad_rows(&nearest.transform) => &["bad_rows"],
            _ => &[],
        };
        (step.name.as_str(), outputs)
    });
    sources.chain(steps).collect()
}

/// Whether rows that a transform does not take go to its side output.
fn has_bad_rows(transform: &TransformSpec) -> bool {
    transform.on_bad_row == OnBadRow::DeadLetter
}

fn consumers(job: &JobSpec) -> impl Iterator<Item = (&str, &[InputSpec])> {
    let steps = job.steps.iter().map(|step| (step.name.as_str(), step.spec.inputs.as_slice()));
    steps.chain(job.sinks.iter().map(|sink| (sink.name.as_str(), sink.spec.inputs.as_slice())))
}

fn check_input(
    checker: &Checker<'_>,
    job: &JobSpec,
    outputs: &BTreeMap<&str, &'static [&'static str]>,
    input: &InputSpec,
) {
    if job.unreadable.contains(input.from.reveal()) {
        return;
    }
    let Some(sides) = outputs.get(input.from.as_str()) else {
        if job.sinks.iter().any(|sink| sink.name == input.from.as_str()) {
            checker.mistake(&input.place, format!("`{}` is a sink; a sink gives nothing", input.from));
            return;
        }
        let names = outputs.keys().copied();
        let near = did_you_mean(input.from.as_str(), names.clone()).filter(|_| !input.from.is_foreign());
        let hint = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("expected one of {}", names.collect::<Vec<_>>().join(", ")),
        };
        checker.mistake(&input.place, format!("there is no source or step `{}`; {hint}", input.from));
        return;
    };
    let Some(side) = &input.output else { return };
    if sides.contains(&side.as_str()) {
        return;
    }
    let message = match (side.as_str(), sides) {
        ("dead_letters", []) => {
            format!("`{}` has no dead letters; its `on_decode_error` is not `dead_letter`", input.from)
        }
        ("ahead", _) => {
            format!("`{}` puts no rows aside; its `on_ahead` is not `dead_letter`", input.from)
        }
        ("bad_rows", []) => {
            format!("`{}` has no bad rows; its `on_bad_row` is not `dead_letter`", input.from)
        }
        (_, []) => format!("`{}` has no side outputs", input.from),
        (_, sides) => format!("`{}` has no output `{side}`; expected {}", input.from, sides.join(", ")),
    };
    checker.mistake(&input.place, message);
}

/// A source or step that nobody reads is a forgotten line somewhere.
fn report_unused(checker: &Checker<'_>, job: &JobSpec) {
    if !job.unreadable.is_empty() {
        return;
    }
    let used: BTreeSet<&str> =
        consumers(job).flat_map(|(_, inputs)| inputs).map(|input| input.from.as_str()).collect();
    let sources = job.sources.iter().map(|source| (&source.name, &source.place));
    let steps = job.steps.iter().map(|step| (&step.name, &step.place));
    for (name, place) in sources.chain(steps) {
        if !used.contains(name.as_str()) {
            checker.mistake(place, "nothing reads this; name it as an `input`, or send it to a `blackhole`");
        }
    }
}

fn report_circles(checker: &Checker<'_>, job: &JobSpec, order: &[usize]) {
    let left: BTreeMap<&str, usize> = job
        .steps
        .iter()
        .enumerate()
        .filter(|(index, _)| !order.contains(index))
        .map(|(index, step)| (step.name.as_str(), index))
        .collect();
    for (name, &index) in &left {
        // Walk back along inputs that are left too; a circle comes back to where it began.
        let mut path = vec![*name];
        let mut current = index;
        loop {
            let back = job.steps[current]
                .spec
                .inputs
                .iter()
                .find_map(|input| left.get_key_value(input.from.as_str()));
            let Some((&from, &at)) = back else { break };
            if from == *name {
                // Reported once, at the first of its names.
                if path.iter().all(|other| name <= other) {
                    path.push(name);
                    path.reverse();
                    let circle = path.join(" -> ");
                    checker.mistake(
                        &job.steps[index].place,
                        format!("the steps feed each other in a circle: {circle}"),
                    );
                }
                break;
            }
            if path.contains(&from) {
                break;
            }
            path.push(from);
            current = at;
        }
    }
}
