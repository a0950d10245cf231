import { type Machine, machineSchema } from '#workflows/asl.ts';

const machine = (states: Record<string, unknown>, more: Record<string, unknown> = {}): Machine =>
  machineSchema.parse({ StartAt: Object.keys(states)[0], States: states, ...more });
const task = (resource: string, more: Record<string, unknown> = {}) => ({
  Type: 'Task',
  Resource: resource,
  ...('Next' in more ? {} : { End: true }),
  ...more,
});

/** The machines that a store under test must know. */
export const TEST_MACHINES: Readonly<Record<string, Machine>> = {
  echo: machine({ Echo: task('echo') }),
  shaping: machine({
    First: task('echo', {
      InputPath: '$.a',
      Parameters: { fixed: [1, { x: true }], 'taken.$': '$.list[1].n', 'who.$': '$$.Execution.Name' },
      ResultPath: '$.out.first',
      Next: 'Second',
    }),
    Second: task('echo', { InputPath: null, ResultPath: null, Next: 'Third' }),
    Third: { Type: 'Pass', Result: { made: 1 }, ResultPath: '$.pass', Next: 'Fourth' },
    Fourth: { Type: 'Pass', Parameters: { 'copy.$': '$.pass.made' }, ResultPath: '$.copied', Next: 'Done' },
    Done: { Type: 'Succeed', OutputPath: '$' },
  }),
  choice: machine({
    Which: {
      Type: 'Choice',
      Choices: [
        { Variable: '$.kind', StringEquals: 'text', Next: 'Text' },
        { Variable: '$.kind', NumericGreaterThanEquals: 10, Next: 'Many' },
        { Variable: '$.kind', BooleanEquals: true, Next: 'Yes' },
        { Variable: '$.kind', IsNull: true, Next: 'Null' },
      ],
      Default: 'Other',
    },
    ...Object.fromEntries(
      ['Text', 'Many', 'Yes', 'Null', 'Other'].map((name) => [name, { Type: 'Pass', Result: { name }, End: true }]),
    ),
  }),
  noDefault: machine({
    Which: { Type: 'Choice', Choices: [{ Variable: '$.kind', StringEquals: 'x', Next: 'X' }] },
    X: { Type: 'Succeed' },
  }),
  failing: machine({ Stop: { Type: 'Fail', Error: 'Own.Error', Cause: 'as asked' } }),
  uncaught: machine({ Try: task('throw') }),
  retrying: machine({
    Try: task('flaky', {
      Retry: [
        { ErrorEquals: ['Never'], MaxAttempts: 0 },
        { ErrorEquals: ['throttled', 'Odd'], IntervalSeconds: 2, BackoffRate: 3, MaxAttempts: 3, MaxDelaySeconds: 10 },
      ],
      Catch: [{ ErrorEquals: ['States.ALL'], ResultPath: '$.error', Next: 'Caught' }],
      End: true,
    }),
    Caught: { Type: 'Pass', End: true },
  }),
  map: machine({
    Each: {
      Type: 'Map',
      ItemsPath: '$.items',
      ItemSelector: { 'value.$': '$$.Map.Item.Value', 'index.$': '$$.Map.Item.Index', 'common.$': '$.common' },
      MaxConcurrency: 2,
      ItemProcessor: {
        StartAt: 'One',
        States: { One: task('item', { Next: 'Two' }), Two: { Type: 'Pass', End: true } },
      },
      ResultPath: '$.results',
      Catch: [{ ErrorEquals: ['Item'], ResultPath: '$.error', Next: 'Caught' }],
      End: true,
    },
    Caught: { Type: 'Pass', End: true },
  }),
  parallel: machine({
    Both: {
      Type: 'Parallel',
      Branches: [
        { StartAt: 'A', States: { A: task('echo', { Parameters: { a: 1 }, End: true }) } },
        {
          StartAt: 'B',
          States: {
            B: {
              Type: 'Map',
              ItemsPath: '$.items',
              ItemProcessor: { StartAt: 'C', States: { C: task('double') } },
              End: true,
            },
          },
        },
      ],
      ResultPath: '$.both',
      End: true,
    },
  }),
  token: machine({
    Ask: task('ask.waitForTaskToken', {
      Parameters: { 'token.$': '$$.Task.Token', 'input.$': '$' },
      ResultPath: '$.answer',
      Catch: [{ ErrorEquals: ['Refused'], ResultPath: '$.refused', Next: 'Refused' }],
      End: true,
    }),
    Refused: { Type: 'Pass', End: true },
  }),
  twoTokens: machine({
    First: task('ask.waitForTaskToken', {
      Parameters: { input: { id: 'two-a' }, 'token.$': '$$.Task.Token' },
      Next: 'Then',
    }),
    Then: task('ask.waitForTaskToken', { Parameters: { input: { id: 'two-b' }, 'token.$': '$$.Task.Token' } }),
  }),
  timed: machine({
    Ask: task('ask.waitForTaskToken', {
      TimeoutSeconds: 100,
      HeartbeatSeconds: 10,
      Catch: [
        { ErrorEquals: ['States.HeartbeatTimeout'], ResultPath: '$.e', Next: 'Silent' },
        { ErrorEquals: ['States.Timeout'], ResultPath: '$.e', Next: 'Late' },
      ],
      End: true,
    }),
    Silent: { Type: 'Pass', Result: { why: 'silent' }, End: true },
    Late: { Type: 'Pass', Result: { why: 'late' }, End: true },
  }),
  slow: machine({ Slow: task('hang', { TimeoutSeconds: 5 }) }),
  bounded: machine({ Slow: task('hang') }, { TimeoutSeconds: 50 }),
  waiting: machine({ Wait: { Type: 'Wait', SecondsPath: '$.seconds', Next: 'Done' }, Done: { Type: 'Succeed' } }),
  until: machine({ Wait: { Type: 'Wait', TimestampPath: '$.at', Next: 'Done' }, Done: { Type: 'Succeed' } }),
  crowd: machine({
    Each: {
      Type: 'Map',
      ItemsPath: '$.items',
      ItemProcessor: { StartAt: 'One', States: { One: { Type: 'Pass', End: true } } },
      ResultPath: '$.results',
      End: true,
    },
  }),
};
