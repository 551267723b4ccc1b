//! `tools`, and the fields that belong to it.

use std::collections::HashSet;
use std::sync::Arc;

use weir_api::Anything;
use weir_api::chat::{self, tools::ChoiceObject};
use weir_engine::Feature;
use weir_engine::request::{Invalid, Tool, ToolChoice, Tools};

use super::{Needs, is_name};

pub(super) fn tools(
    tools: Vec<chat::Tool>,
    choice: Option<chat::ToolChoice>,
    parallel: Option<bool>,
    needs: &mut Needs,
) -> Result<Tools, Invalid> {
    let tools: Vec<_> = (0..)
        .zip(tools)
        .map(|(index, given)| tool(index, given))
        .collect::<Result<_, _>>()?;
    let mut names = HashSet::new();
    if let Some(index) = tools.iter().position(|tool| !names.insert(&tool.name)) {
        let param = format!("tools.{index}.function.name");
        let message = format!("{param}: two tools are named {}", tools[index].name);
        return Err(Invalid::new(param, message));
    }
    let choice = self::choice(choice, &tools)?;
    if !tools.is_empty() {
        needs.feature("tools", Feature::FunctionCalling);
    }
    Ok(Tools {
        tools,
        choice,
        parallel,
    })
}

fn tool(index: usize, given: chat::Tool) -> Result<Tool, Invalid> {
    let invalid = |field: &str, what: &str| {
        let param = format!("tools.{index}.{field}");
        let message = format!("{param} {what}");
        Err(Invalid::new(param, message))
    };
    if given.kind.is_none_or(|kind| kind != "function") {
        return invalid("type", "must be function");
    }
    let Some(function) = given.function else {
        return invalid("function", "is required");
    };
    match function.name {
        Some(name) if is_name(&name) => Ok(Tool {
            name,
            description: function.description,
            parameters_text: (function.parameters.as_ref())
                .and_then(|schema| schema.text.as_deref().map(Arc::from)),
            parameters: function.parameters.map(|schema| Arc::new(schema.value)),
            strict: function.strict.unwrap_or(false),
        }),
        _ => invalid(
            "function.name",
            "is required: 1 to 64 letters, digits, _ and -",
        ),
    }
}

fn choice(choice: Option<chat::ToolChoice>, tools: &[Tool]) -> Result<ToolChoice, Invalid> {
    let invalid = |message: &str| Err(Invalid::new("tool_choice", message));
    let choice = match choice {
        None | Some(chat::ToolChoice::Auto) => ToolChoice::Auto,
        Some(chat::ToolChoice::None) => ToolChoice::None,
        Some(chat::ToolChoice::Required) => ToolChoice::Required,
        Some(chat::ToolChoice::Object(ChoiceObject { kind, function })) => {
            if kind.is_some_and(|kind| kind != "function") {
                return Err(Invalid::new(
                    "tool_choice.type",
                    "tool_choice.type must be function",
                ));
            }
            match function.and_then(|function| function.name) {
                Some(name) => ToolChoice::Named(name),
                None => {
                    return Err(Invalid::new(
                        "tool_choice.function.name",
                        "tool_choice.function.name is required",
                    ));
                }
            }
        }
    };
    match &choice {
        ToolChoice::Required | ToolChoice::Named(_) if tools.is_empty() => {
            invalid("tool_choice asks for a call, but there are no tools")
        }
        ToolChoice::Named(name) if tools.iter().all(|tool| tool.name != *name) => {
            invalid("tool_choice names a function that is not in tools")
        }
        _ => Ok(choice),
    }
}

/// Refuses OpenAI's old fields for functions; current clients send `tools`.
pub(super) fn refuse_functions(
    functions: Option<Anything>,
    function_call: Option<Anything>,
) -> Result<(), Invalid> {
    let fields = [
        ("functions", functions, "tools"),
        ("function_call", function_call, "tool_choice"),
    ];
    for (param, field, instead) in fields {
        if field.is_some() {
            return Err(Invalid::new(
                param,
                format!("{param} is not supported; send {instead} instead"),
            ));
        }
    }
    Ok(())
}
