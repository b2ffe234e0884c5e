//! How expressions are parsed, checked and planned, with DataFusion's own crates for that and
//! without its batch engine. Nothing here depends on the process that it is in.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::SchemaRef;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Column, DFSchema, DataFusionError, SchemaError};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::simplify::SimplifyContext;
use datafusion_expr::{Expr, Volatility};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion_sql::parser::DFParserBuilder;
use datafusion_sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion_sql::sqlparser::ast::ExprWithAlias;
use datafusion_sql::sqlparser::dialect::GenericDialect;

use super::did_you_mean;
use super::functions::Functions;

/// Column names are taken as they are written: JSON's `userId` needs no quotes.
static FUNCTIONS: LazyLock<Functions> = LazyLock::new(|| {
    let mut options = ConfigOptions::default();
    options.sql_parser.enable_ident_normalization = false;
    Functions::new(options)
});

/// Parses SQL text into an expression over `schema`. The error is a sentence for people.
pub(super) fn parse(sql: &str, schema: &DFSchema) -> Result<Expr, String> {
    if sql.trim().is_empty() {
        return Err("the expression is empty".to_string());
    }
    let options = ParserOptions::from(&FUNCTIONS.options.sql_parser);
    let plan = |parsed| {
        SqlToRel::new_with_options(&*FUNCTIONS, options).sql_to_expr_with_alias(
            parsed,
            schema,
            &mut PlannerContext::new(),
        )
    };
    syntax_tree(sql).and_then(plan).map_err(|error| explain(&error))
}

/// The name that `as` gives the expression, and whether the text parses at all.
pub(super) fn alias_of(sql: &str) -> Option<String> {
    syntax_tree(sql).ok()?.alias.map(|alias| alias.value)
}

fn syntax_tree(sql: &str) -> Result<ExprWithAlias, DataFusionError> {
    let recursion_max = FUNCTIONS.options.sql_parser.recursion_limit.get();
    let parser =
        DFParserBuilder::new(sql).with_dialect(&GenericDialect {}).with_recursion_limit(recursion_max);
    parser.build()?.parse_into_expr()
}

/// Resolves columns, refuses what is not a pure function of a row, coerces types, folds constants.
pub(super) fn prepare(expr: Expr, schema: &DFSchema) -> Result<Expr, String> {
    let expr = resolve_columns(expr.unalias(), schema)?;
    refuse_impure(&expr)?;
    let simplifier = simplifier(schema);
    let coerced = simplifier.coerce(expr, schema).map_err(|error| explain(&error))?;
    simplifier.simplify(coerced).map_err(|error| explain(&error))
}

/// Makes the physical expression of a prepared one.
pub(super) fn physical(expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>, String> {
    create_physical_expr(expr, schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())
        .map_err(|error| explain(&error))
}

fn simplifier(schema: &DFSchema) -> ExprSimplifier {
    let context = SimplifyContext::builder()
        .with_schema(Arc::new(schema.clone()))
        .with_config_options(Arc::clone(&FUNCTIONS.options))
        .build();
    ExprSimplifier::new(context)
}

/// DataFusion's view of a schema.
pub(super) fn df_schema(schema: &SchemaRef) -> Result<DFSchema, String> {
    DFSchema::try_from(Arc::clone(schema)).map_err(|error| explain(&error))
}

/// `col("userId")` reaches us as `userid`, for DataFusion folds case there: a name that matches
/// one column but for its case means that column.
fn resolve_columns(expr: Expr, schema: &DFSchema) -> Result<Expr, String> {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let mut unknown = None;
    let resolved = expr.transform(|node| {
        let Expr::Column(column) = node else {
            return Ok(Transformed::no(node));
        };
        let flat = column.flat_name();
        let found = names
            .iter()
            .find(|name| **name == flat || (column.relation.is_none() && **name == column.name))
            .or_else(|| only_match(&names, &flat));
        match found {
            Some(name) => Ok(Transformed::yes(Expr::Column(Column::new_unqualified(*name)))),
            None => {
                unknown.get_or_insert_with(|| unknown_column(&flat, &names));
                Ok(Transformed::no(Expr::Column(column)))
            }
        }
    });
    match (unknown, resolved) {
        (Some(unknown), _) => Err(unknown),
        (None, resolved) => resolved.map(|resolved| resolved.data).map_err(|error| explain(&error)),
    }
}

fn only_match<'a, 'b>(names: &'a [&'b str], wanted: &str) -> Option<&'a &'b str> {
    let mut matching = names.iter().filter(|name| name.eq_ignore_ascii_case(wanted));
    matching.next().filter(|_| matching.next().is_none())
}

fn refuse_impure(expr: &Expr) -> Result<(), String> {
    let mut refusal = None;
    let walked = expr.apply(|node| {
        let message = match node {
            Expr::AggregateFunction(function) => format!(
                "{}() is an aggregate; aggregates belong to a window or a keyed aggregation",
                function.func.name()
            ),
            Expr::WindowFunction(_) => "SQL window functions (over ...) are not expressions of one row".into(),
            Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_) => {
                "a subquery is not an expression of one row".into()
            }
            Expr::ScalarFunction(function) if function.func.signature().volatility != Volatility::Immutable => {
                format!(
                    "{}() gives another result when the job is replayed; an expression may depend on its row only",
                    function.func.name()
                )
            }
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        refusal.get_or_insert(message);
        Ok(TreeNodeRecursion::Stop)
    });
    match (refusal, walked) {
        (Some(refusal), _) => Err(refusal),
        (None, walked) => walked.map(|_| ()).map_err(|error| explain(&error)),
    }
}

fn unknown_column(name: &str, known: &[&str]) -> String {
    let hint = did_you_mean(name, known.iter().copied())
        .map_or_else(String::new, |near| format!(" (did you mean {near:?}?)"));
    format!("there is no column {name:?}{hint}; the columns are {}", known.join(", "))
}

/// What a DataFusion error says, without its prefixes and its advice to file a bug.
pub(super) fn explain(error: &DataFusionError) -> String {
    match error.find_root() {
        DataFusionError::SchemaError(schema_error, _) => match schema_error.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let known: Vec<&str> = valid_fields.iter().map(|column| column.name.as_str()).collect();
                unknown_column(&field.flat_name(), &known)
            }
            other => other.to_string(),
        },
        DataFusionError::SQL(parser_error, _) => {
            let text = parser_error.to_string();
            text.strip_prefix("sql parser error: ").unwrap_or(&text).to_string()
        }
        DataFusionError::Plan(message) | DataFusionError::Execution(message) => first_line(message),
        DataFusionError::ArrowError(arrow, _) => first_line(&arrow.to_string()),
        other => first_line(&other.strip_backtrace()),
    }
}

fn first_line(message: &str) -> String {
    // DataFusion's suggestion for a function stands on the second line, its candidates below.
    let lines: Vec<&str> = message.lines().take(2).collect();
    match lines.as_slice() {
        [first, second] if second.starts_with("Did you mean") => {
            format!("{}; did you mean{}", first.trim_end_matches('.'), &second["Did you mean".len()..])
        }
        [first, ..] => first.trim_end_matches('.').to_string(),
        [] => String::new(),
    }
}
