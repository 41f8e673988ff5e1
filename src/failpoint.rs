//! Crash points for the drills. Without the `failpoints` feature they are nothing.

/// Aborts the process here if the point is armed: `FAILPOINTS='NAME=return'`, or `1*return` for the first pass only.
#[inline]
pub fn crash_point(name: &str) {
    #[cfg(feature = "failpoints")]
    {
        let _ = fail::eval(name, |_| {
            tracing::warn!(point = name, "crash point reached: aborting");
            std::process::abort()
        });
    }
    #[cfg(not(feature = "failpoints"))]
    let _ = name;
}
