/**
 * The subset of Amazon States Language that our machines use, so that one text runs on Step Functions and on the
 * embedded interpreter. What is not here is refused when the machine is defined, not found out at night.
 *
 * Source: https://states-language.net/ (JSONPath flavour; no intrinsic functions, no JSONata).
 */

import { z } from 'zod';

const NAME_MAX = 80;
const PATH = /^\$(?:\.[A-Za-z_][A-Za-z0-9_-]*|\[\d+\])*$/;
const CONTEXT_PATH = /^\$\$(?:\.[A-Za-z_][A-Za-z0-9_-]*)+$/;

const seconds = z.int().min(1).max(99_999_999);
const name = z.string().min(1).max(NAME_MAX);
/** Where to read from: `$`, `$.a.b`, `$.list[0]`. */
const path = z.string().regex(PATH, 'must be a path such as $.a.b');
/** Where to write to: names only. */
const resultPath = z.union([z.string().regex(/^\$(?:\.[A-Za-z_][A-Za-z0-9_-]*)*$/), z.null()]);
const inputPath = z.union([path, z.null()]);

/** A JSON value in which a field `"name.$"` takes its value from a path of the input or (`$$`) the context. */
export type Template = string | number | boolean | null | Template[] | { [name: string]: Template };
const template: z.ZodType<Template> = z.lazy(() =>
  z.union([
    z.string(),
    z.number(),
    z.boolean(),
    z.null(),
    z.array(template),
    z.record(z.string(), template).superRefine((fields, context) => {
      for (const [field, value] of Object.entries(fields)) {
        const isPath = typeof value === 'string' && (PATH.test(value) || CONTEXT_PATH.test(value));
        if (!field.endsWith('.$') || isPath) continue;
        context.addIssue({ code: 'custom', path: [field], message: 'must be a path, since the name ends in ".$"' });
      }
    }),
  ]),
);

const retrier = z.strictObject({
  ErrorEquals: z.array(z.string().min(1)).min(1),
  IntervalSeconds: seconds.optional(),
  MaxAttempts: z.int().min(0).max(99_999_999).optional(),
  BackoffRate: z.number().min(1).optional(),
  MaxDelaySeconds: z.int().min(1).max(31_622_400).optional(),
  JitterStrategy: z.enum(['FULL', 'NONE']).optional(),
});
const catcher = z.strictObject({
  ErrorEquals: z.array(z.string().min(1)).min(1),
  ResultPath: resultPath.optional(),
  Next: name,
});

/** After a retrier or catcher for everything no other can be reached: Step Functions refuses it. */
function allIsLast(entries: readonly { readonly ErrorEquals: readonly string[] }[]): boolean {
  return entries.every(
    ({ ErrorEquals }, index) =>
      !ErrorEquals.includes('States.ALL') || (ErrorEquals.length === 1 && index === entries.length - 1),
  );
}
const retry = z.array(retrier).refine(allIsLast, 'States.ALL must stand alone, in the last entry').optional();
const catches = z.array(catcher).refine(allIsLast, 'States.ALL must stand alone, in the last entry').optional();

const described = { Comment: z.string().optional() };
const following = { Next: name.optional(), End: z.literal(true).optional() };
const shaping = { InputPath: inputPath.optional(), OutputPath: inputPath.optional() };

const task = z.strictObject({
  Type: z.literal('Task'),
  ...described,
  ...following,
  ...shaping,
  /** What to run; with the ending `.waitForTaskToken` the task lasts until its token is completed or failed. */
  Resource: z.string().min(1),
  Parameters: template.optional(),
  ResultPath: resultPath.optional(),
  TimeoutSeconds: seconds.optional(),
  HeartbeatSeconds: seconds.optional(),
  Retry: retry,
  Catch: catches,
});

const pass = z.strictObject({
  Type: z.literal('Pass'),
  ...described,
  ...following,
  ...shaping,
  Parameters: template.optional(),
  Result: template.optional(),
  ResultPath: resultPath.optional(),
});

const wait = z.strictObject({
  Type: z.literal('Wait'),
  ...described,
  ...following,
  ...shaping,
  Seconds: z.int().min(0).max(99_999_999).optional(),
  SecondsPath: path.optional(),
  Timestamp: z.iso.datetime({ offset: true }).optional(),
  TimestampPath: path.optional(),
});

const TESTS = {
  StringEquals: z.string().optional(),
  BooleanEquals: z.boolean().optional(),
  NumericEquals: z.number().optional(),
  NumericGreaterThan: z.number().optional(),
  NumericGreaterThanEquals: z.number().optional(),
  NumericLessThan: z.number().optional(),
  NumericLessThanEquals: z.number().optional(),
  IsPresent: z.boolean().optional(),
  IsNull: z.boolean().optional(),
};
/** The tests a Choice can make on its one field. */
export const TEST_NAMES = Object.keys(TESTS) as (keyof typeof TESTS)[];
const rule = z
  .strictObject({ Variable: path, ...TESTS, Next: name })
  .refine(
    (fields) => TEST_NAMES.filter((test) => fields[test] !== undefined).length === 1,
    'must have exactly one test',
  );

const choice = z.strictObject({
  Type: z.literal('Choice'),
  ...described,
  ...shaping,
  Choices: z.array(rule).min(1),
  Default: name.optional(),
});

const succeed = z.strictObject({ Type: z.literal('Succeed'), ...described, ...shaping });
const fail = z.strictObject({
  Type: z.literal('Fail'),
  ...described,
  Error: z.string().optional(),
  Cause: z.string().optional(),
});

/** A graph of states: a whole machine, a branch, or what a Map does with each item. */
export interface Graph {
  readonly StartAt: string;
  readonly States: Readonly<Record<string, State>>;
}

export interface MapState extends z.infer<typeof mapFields> {
  readonly ItemProcessor: Graph;
}
export interface ParallelState extends z.infer<typeof parallelFields> {
  readonly Branches: readonly Graph[];
}
export type TaskState = z.infer<typeof task>;
export type ChoiceState = z.infer<typeof choice>;
export type WaitState = z.infer<typeof wait>;
export type PassState = z.infer<typeof pass>;
export type State =
  | TaskState
  | PassState
  | WaitState
  | ChoiceState
  | z.infer<typeof succeed>
  | z.infer<typeof fail>
  | MapState
  | ParallelState;
export type Retrier = z.infer<typeof retrier>;
export type Catcher = z.infer<typeof catcher>;
export type Rule = z.infer<typeof rule>;

const mapFields = z.strictObject({
  Type: z.literal('Map'),
  ...described,
  ...following,
  ...shaping,
  ItemsPath: path.optional(),
  ItemSelector: template.optional(),
  MaxConcurrency: z.int().min(0).optional(),
  ResultPath: resultPath.optional(),
  Retry: retry,
  Catch: catches,
});
const parallelFields = z.strictObject({
  Type: z.literal('Parallel'),
  ...described,
  ...following,
  ...shaping,
  Parameters: template.optional(),
  ResultPath: resultPath.optional(),
  Retry: retry,
  Catch: catches,
});

const state: z.ZodType<State> = z.lazy(() =>
  z
    .discriminatedUnion('Type', [
      task,
      pass,
      wait,
      choice,
      succeed,
      fail,
      mapFields.extend({ ItemProcessor: itemProcessor }),
      parallelFields.extend({ Branches: z.array(graph).min(1) }),
    ])
    .superRefine(checkState),
);
const graphFields = { StartAt: name, States: z.record(name, state) };
const graph: z.ZodType<Graph> = z.strictObject({ ...described, ...graphFields }).superRefine(checkGraph);
const itemProcessor: z.ZodType<Graph> = z
  .strictObject({ ...graphFields, ProcessorConfig: z.strictObject({ Mode: z.literal('INLINE') }).optional() })
  .superRefine(checkGraph);

/** A state machine: what `Workflows.start` runs. Throws zod's error for anything outside the subset. */
export const machineSchema = z
  .strictObject({ ...described, ...graphFields, TimeoutSeconds: seconds.optional() })
  .superRefine(checkGraph);
export type Machine = z.infer<typeof machineSchema>;

function checkState(one: State, context: z.RefinementCtx): void {
  const refuse = (message: string) => context.addIssue({ code: 'custom', message });
  if (one.Type !== 'Choice' && one.Type !== 'Succeed' && one.Type !== 'Fail') {
    if ((one.Next === undefined) === (one.End === undefined)) refuse('must have either Next or End');
  }
  if (one.Type === 'Task' && one.HeartbeatSeconds !== undefined) {
    if (one.TimeoutSeconds !== undefined && one.HeartbeatSeconds >= one.TimeoutSeconds) {
      refuse('HeartbeatSeconds must be less than TimeoutSeconds');
    }
  }
  if (one.Type === 'Wait') {
    const ways = [one.Seconds, one.SecondsPath, one.Timestamp, one.TimestampPath];
    if (ways.filter((way) => way !== undefined).length !== 1) refuse('must say in exactly one way how long');
  }
}

/** Every name that is gone to exists, every state can be reached, and some state ends. */
function checkGraph(one: Graph, context: z.RefinementCtx): void {
  const refuse = (message: string) => context.addIssue({ code: 'custom', message });
  const reached = new Set<string>();
  const open = [one.StartAt];
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    if (reached.has(at)) continue;
    reached.add(at);
    const found = Object.hasOwn(one.States, at) ? one.States[at] : undefined;
    if (found === undefined) refuse(`there is no state ${at}`);
    else open.push(...successorsOf(found));
  }
  for (const stateName of Object.keys(one.States)) {
    if (!reached.has(stateName)) refuse(`the state ${stateName} can't be reached`);
  }
  const ends = Object.values(one.States).some(
    (found) => found.Type === 'Succeed' || found.Type === 'Fail' || ('End' in found && found.End === true),
  );
  if (!ends) refuse('no state ends it');
}

function successorsOf(one: State): string[] {
  const next: (string | undefined)[] = [];
  if ('Next' in one) next.push(one.Next);
  if (one.Type === 'Choice') next.push(one.Default, ...one.Choices.map((found) => found.Next));
  if ('Catch' in one) next.push(...(one.Catch ?? []).map((found) => found.Next));
  return next.filter((found) => found !== undefined);
}
