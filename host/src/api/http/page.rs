//! How families of metrics are written.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::node::{BUCKETS_SECONDS, Durations};

/// Of a series; none: the family has only one.
pub(super) type Labels = Vec<(&'static str, String)>;

/// The text in the making.
pub(super) struct Page<'a> {
    pub(super) encoder: DescriptorEncoder<'a>,
}

impl Page<'_> {
    /// `_total` is added to the name.
    pub(super) fn counter(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            // An empty pair of braces would be another series to some readers.
            if labels.is_empty() {
                family.encode_counter::<NoLabelSet, u64, u64>(&value, None)?;
            } else {
                let mut metric = family.encode_family(&labels)?;
                metric.encode_counter::<NoLabelSet, u64, u64>(&value, None)?;
            }
        }
        Ok(())
    }

    /// `_bytes_total` is added to the name.
    pub(super) fn byte_counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let unit = Some(&Unit::Bytes);
        let mut metric = self.encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, u64, u64>(&value, None)
    }

    pub(super) fn gauges(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        self.gauges_in(name, help, None, values)
    }

    fn gauges_in(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        values: impl IntoIterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in values {
            if labels.is_empty() {
                family.encode_gauge(&value)?;
            } else {
                family.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.gauges(name, help, [(vec![], value)])
    }

    /// `_bytes` is added to the name.
    pub(super) fn bytes(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.bytes_of(name, help, [(vec![], value)])
    }

    /// `_bytes` is added to the name.
    pub(super) fn bytes_of(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        self.gauges_in(name, help, Some(&Unit::Bytes), values)
    }

    /// `_seconds` is added to the name.
    pub(super) fn seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let unit = Some(&Unit::Seconds);
        self.encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// `_seconds` and the suffix of a counter are added to the name.
    pub(super) fn seconds_counter(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let unit = Some(&Unit::Seconds);
        let mut family = self.encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
        family.encode_counter::<NoLabelSet, f64, u64>(&value, None)
    }

    /// `_seconds` and the suffixes of a histogram are added to the name.
    pub(super) fn durations(
        &mut self,
        name: &str,
        help: &str,
        durations: &Durations,
    ) -> fmt::Result {
        self.durations_of(name, help, [(vec![], durations)])
    }

    /// `_seconds` and the suffixes of a histogram are added to the name.
    pub(super) fn durations_of<'a>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, &'a Durations)>,
    ) -> fmt::Result {
        let unit = Some(&Unit::Seconds);
        let mut family = self.encoder.encode_descriptor(name, help, unit, MetricType::Histogram)?;
        for (labels, durations) in values {
            let counts = durations.buckets();
            let bounds = BUCKETS_SECONDS.into_iter().chain([f64::MAX]);
            let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
            let (sum, count) = (durations.sum_seconds(), counts.iter().sum());
            if labels.is_empty() {
                family.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
            } else {
                let mut metric = family.encode_family(&labels)?;
                metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
            }
        }
        Ok(())
    }

    /// `_info` is added to the name.
    pub(super) fn info(
        &mut self,
        name: &str,
        help: &str,
        labels: &[(&'static str, String)],
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Info)?;
        metric.encode_info(&labels)
    }
}
