//! Transcendental functions on vectors.
//!
//! Against the exact value, over all `f32`: `exp` is within 2e-7 of it, relatively (results below
//! the least normal number absolutely); `erf` within 5e-7, absolutely. The tests hold them to that.

use super::lanes::Lanes;

/// `e^x`: 0 below -104, infinity from 88.73 on, NaN of NaN. The polynomial is Cephes' `expf`.
#[inline(always)]
pub(super) fn exp<S: Lanes>(s: S, x: S::V) -> S::V {
    // In this order a NaN passes.
    let x = s.max(s.splat(-104.0), x);
    let x = s.min(s.splat(89.0), x);
    let exponent = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.mul_add(exponent, s.splat(-0.693_359_4), x);
    let r = s.mul_add(exponent, s.splat(2.121_944_4e-4), r);
    let mut p = s.splat(1.987_569_1e-4);
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = s.mul_add(p, r, s.splat(coefficient));
    }
    let p = s.add(s.mul_add(p, s.mul(r, r), r), s.splat(1.0));
    s.scale(p, exponent)
}

/// From here on `erf` is 1 to a rounding, and so is the function that stands for it.
const ERF_IS_ONE: f32 = 4.05;

/// `erf(x)`: a rational function (Eigen's), exactly 1 at both ends.
#[inline(always)]
pub(super) fn erf<S: Lanes>(s: S, x: S::V) -> S::V {
    let x = s.max(s.splat(-ERF_IS_ONE), x);
    let x = s.min(s.splat(ERF_IS_ONE), x);
    let x2 = s.mul(x, x);
    let mut p = s.splat(-2.726_142_3e-10);
    for coefficient in
        [2.770_681_4e-8, -2.101_024e-6, -5.692_506_4e-5, -7.349_906_3e-4, -2.954_6e-3, -1.609_603_3e-2]
    {
        p = s.mul_add(p, x2, s.splat(coefficient));
    }
    let mut q = s.splat(-1.456_607_2e-5);
    for coefficient in [-2.133_740_5e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2] {
        q = s.mul_add(q, x2, s.splat(coefficient));
    }
    let y = s.div(s.mul(x, p), q);
    s.min(s.splat(1.0), s.max(s.splat(-1.0), y))
}

/// `x * (1 + erf(x / sqrt(2))) / 2`.
#[inline(always)]
pub(super) fn gelu<S: Lanes>(s: S, x: S::V) -> S::V {
    let e = erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2)));
    s.mul(s.mul(x, s.splat(0.5)), s.add(e, s.splat(1.0)))
}

/// `x / 2 * (1 + tanh(y))`, which is `x / (1 + exp(-2y))`.
#[inline(always)]
pub(super) fn gelu_tanh<S: Lanes>(s: S, x: S::V) -> S::V {
    // y = sqrt(2 / pi) * (x + 0.044715 x^3)
    let root = 0.797_884_6;
    let inner = s.mul_add(s.mul(x, x), s.splat(-2.0 * root * 0.044_715), s.splat(-2.0 * root));
    s.div(x, s.add(exp(s, s.mul(x, inner)), s.splat(1.0)))
}

/// `x / (1 + exp(-x))`.
#[inline(always)]
pub(super) fn silu<S: Lanes>(s: S, x: S::V) -> S::V {
    s.div(x, s.add(exp(s, s.sub(s.splat(0.0), x)), s.splat(1.0)))
}

/// `max(x, 0)`; NaN stays.
#[inline(always)]
pub(super) fn relu<S: Lanes>(s: S, x: S::V) -> S::V {
    s.max(s.splat(0.0), x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::{Isa, kernel};

    #[inline(always)]
    fn exp_all<S: Lanes>(s: S, values: &mut [f32]) {
        for part in values.chunks_mut(S::N) {
            let y = exp(s, s.load(part));
            s.store(part, y);
        }
    }
    kernel! { fn run_exp = exp_all(values: &mut [f32]) }

    #[inline(always)]
    fn erf_all<S: Lanes>(s: S, values: &mut [f32]) {
        for part in values.chunks_mut(S::N) {
            let y = erf(s, s.load(part));
            s.store(part, y);
        }
    }
    kernel! { fn run_erf = erf_all(values: &mut [f32]) }

    /// By its series; from 4 on it is 1 to 2e-8, and the series' terms would swallow its bits.
    fn erf_exact(x: f64) -> f64 {
        if x.abs() > 4.0 {
            return x.signum();
        }
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / n as f64;
            sum += term / (2 * n + 1) as f64;
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    }

    fn grid() -> Vec<f32> {
        (-110_000..=95_000).map(|i| i as f32 * 1e-3).collect()
    }

    #[test]
    fn exp_is_as_exact_as_it_says() {
        for isa in Isa::all() {
            let mut values = grid();
            run_exp(isa, &mut values);
            for (x, y) in grid().into_iter().zip(values) {
                let exact = f64::from(x).exp();
                match exact > f64::from(f32::MAX) {
                    true => assert_eq!(y, f32::INFINITY, "{isa}: exp({x})"),
                    false => {
                        let error = (f64::from(y) - exact).abs();
                        assert!(error <= 2e-7 * exact + 3e-45, "{isa}: exp({x}) = {y}, not {exact}");
                    }
                }
            }
        }
    }

    #[test]
    fn erf_is_as_exact_as_it_says() {
        for isa in Isa::all() {
            let mut values = grid();
            run_erf(isa, &mut values);
            for (x, y) in grid().into_iter().zip(values) {
                let exact = erf_exact(f64::from(x));
                assert!((f64::from(y) - exact).abs() <= 5e-7, "{isa}: erf({x}) = {y}, not {exact}");
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_so_and_infinities_have_their_limits() {
        for isa in Isa::all() {
            let mut values = vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1e-40];
            run_exp(isa, &mut values);
            assert!(values[0].is_nan());
            assert_eq!(values[1..], [f32::INFINITY, 0.0, 1.0, 1.0], "{isa}");
            let mut values = vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0];
            run_erf(isa, &mut values);
            assert!(values[0].is_nan());
            assert_eq!(values[1..], [1.0, -1.0, 0.0], "{isa}");
        }
    }
}
