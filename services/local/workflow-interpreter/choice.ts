import type { Json } from '#ports/table.ts';
import type { ChoiceState, Rule } from '#workflows/asl.ts';
import { find } from './paths.ts';
import { TaskError } from './task-error.ts';

/** The state a Choice goes to. Throws `States.NoChoiceMatched`, or `States.Runtime` if the field is absent. */
export function choose(state: ChoiceState, input: Json): string {
  const rule = state.Choices.find((candidate) => holds(candidate, find(candidate.Variable, input)));
  const next = rule?.Next ?? state.Default;
  if (next === undefined) throw new TaskError('States.NoChoiceMatched', 'No rule held and there is no Default');
  return next;
}

function holds(rule: Rule, value: Json | undefined): boolean {
  if (rule.IsPresent !== undefined) return (value !== undefined) === rule.IsPresent;
  // Step Functions fails the execution here too, rather than take an absent field for a false one.
  if (value === undefined) throw new TaskError('States.Runtime', `The input has nothing at ${rule.Variable}`);
  if (rule.IsNull !== undefined) return (value === null) === rule.IsNull;
  if (rule.StringEquals !== undefined) return value === rule.StringEquals;
  if (rule.BooleanEquals !== undefined) return value === rule.BooleanEquals;
  if (typeof value !== 'number') return false;
  if (rule.NumericEquals !== undefined) return value === rule.NumericEquals;
  if (rule.NumericGreaterThan !== undefined) return value > rule.NumericGreaterThan;
  if (rule.NumericGreaterThanEquals !== undefined) return value >= rule.NumericGreaterThanEquals;
  if (rule.NumericLessThan !== undefined) return value < rule.NumericLessThan;
  return rule.NumericLessThanEquals !== undefined && value <= rule.NumericLessThanEquals;
}
