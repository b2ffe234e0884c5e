//! What a name in an expression may stand for: DataFusion's scalar functions, and its aggregates,
//! so that one where it does not belong is refused as what it is. No tables.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::config::ConfigOptions;
use datafusion_common::{DataFusionError, Result, TableReference};
use datafusion_expr::planner::{ContextProvider, ExprPlanner};
use datafusion_expr::{AggregateUDF, HigherOrderUDF, ScalarUDF, TableSource, WindowUDF};
use datafusion_functions::all_default_functions;
use datafusion_functions_aggregate::all_default_aggregate_functions;

/// The functions that expressions may call, and the options that they are planned with.
#[derive(Debug)]
pub(super) struct Functions {
    pub(super) options: Arc<ConfigOptions>,
    planners: Vec<Arc<dyn ExprPlanner>>,
    scalars: HashMap<String, Arc<ScalarUDF>>,
    aggregates: HashMap<String, Arc<AggregateUDF>>,
}

impl Functions {
    pub(super) fn new(options: ConfigOptions) -> Functions {
        Functions {
            options: Arc::new(options),
            planners: vec![
                Arc::new(datafusion_functions::core::planner::CoreFunctionPlanner::default()),
                Arc::new(datafusion_functions::datetime::planner::DatetimeFunctionPlanner),
                Arc::new(datafusion_functions::unicode::planner::UnicodeFunctionPlanner),
            ],
            scalars: by_name(all_default_functions(), ScalarUDF::name, ScalarUDF::aliases),
            aggregates: by_name(all_default_aggregate_functions(), AggregateUDF::name, AggregateUDF::aliases),
        }
    }
}

/// Functions by their names and aliases.
fn by_name<F>(
    functions: Vec<Arc<F>>,
    name: fn(&F) -> &str,
    aliases: fn(&F) -> &[String],
) -> HashMap<String, Arc<F>> {
    let mut named = HashMap::new();
    for function in functions {
        let names = aliases(&function).iter().cloned().chain([name(&function).to_string()]);
        named.extend(names.map(|name| (name, Arc::clone(&function))));
    }
    named
}

impl ContextProvider for Functions {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        Err(DataFusionError::Plan(format!("there is no table '{name}' in an expression of one row")))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.scalars.get(name).cloned()
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.aggregates.get(name).cloned()
    }

    fn get_window_meta(&self, _name: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _variable_names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        // Suggestions are looked for among these: the first of two that are as near wins.
        let mut names: Vec<String> = self.scalars.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}
