import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { machineSchema } from './asl.ts';

const end = { Type: 'Succeed' };
const states = (States: Record<string, unknown>, StartAt = Object.keys(States)[0]) => ({ StartAt, States });
const task = (more: object) => states({ A: { Type: 'Task', Resource: 'r', End: true, ...more } });

/** Machines that must be refused, by what is wrong with them. */
const REFUSED: Record<string, unknown> = {
  'StartAt names no state': states({ A: end }, 'B'),
  'Next names no state': states({ A: { Type: 'Pass', Next: 'B' } }),
  'Catch names no state': task({ Catch: [{ ErrorEquals: ['States.ALL'], Next: 'B' }] }),
  'a state is never reached': states({ A: end, B: end }),
  'nothing ends it': states({ A: { Type: 'Pass', Next: 'B' }, B: { Type: 'Pass', Next: 'A' } }),
  'both Next and End': states({ A: { Type: 'Pass', Next: 'B', End: true }, B: end }),
  'neither Next nor End': states({ A: { Type: 'Pass' } }),
  'an unknown type': states({ A: { Type: 'Activity', End: true } }),
  JSONata: { ...states({ A: end }), QueryLanguage: 'JSONata' },
  'a field that we do not run': task({ ResultSelector: { 'a.$': '$.b' } }),
  'an intrinsic function': task({ Parameters: { 'a.$': "States.Format('x')" } }),
  'a deep template with a bad path': task({ Parameters: { list: [{ 'a.$': 'text' }] } }),
  'a filter in a path': task({ InputPath: '$.a[?(@.b)]' }),
  'an index in a ResultPath': task({ ResultPath: '$.a[0]' }),
  'a heartbeat as long as the time-out': task({ TimeoutSeconds: 10, HeartbeatSeconds: 10 }),
  'States.ALL that is not alone': task({ Retry: [{ ErrorEquals: ['States.ALL', 'Other'] }] }),
  'States.ALL that is not last': task({ Retry: [{ ErrorEquals: ['States.ALL'] }, { ErrorEquals: ['Other'] }] }),
  'two tests in one rule': states({
    A: { Type: 'Choice', Choices: [{ Variable: '$.a', IsNull: true, StringEquals: 'x', Next: 'B' }] },
    B: end,
  }),
  'a rule without a test': states({ A: { Type: 'Choice', Choices: [{ Variable: '$.a', Next: 'B' }] }, B: end }),
  'a Wait with two times': states({ A: { Type: 'Wait', Seconds: 1, SecondsPath: '$.a', End: true } }),
  'a Wait without time': states({ A: { Type: 'Wait', End: true } }),
  'a bad graph inside a Map': states({
    A: { Type: 'Map', ItemProcessor: states({ B: { Type: 'Pass', Next: 'A' } }), End: true },
  }),
  'a Parallel without branches': states({ A: { Type: 'Parallel', Branches: [], End: true } }),
  'a distributed Map': states({
    A: { Type: 'Map', ItemProcessor: { ...states({ B: end }), ProcessorConfig: { Mode: 'DISTRIBUTED' } }, End: true },
  }),
};

describe('The subset of Amazon States Language', () => {
  for (const [name, machine] of Object.entries(REFUSED)) {
    it(`refuses ${name}`, () => {
      assert.equal(machineSchema.safeParse(machine).success, false);
    });
  }

  it('takes a machine that uses all of it, and leaves it as it is', () => {
    const machine = {
      Comment: 'everything',
      TimeoutSeconds: 3600,
      ...states({
        Choose: {
          Type: 'Choice',
          Choices: [{ Variable: '$.a.b[0]', NumericGreaterThan: 1, Next: 'Each' }],
          Default: 'Both',
        },
        Each: {
          Type: 'Map',
          ItemsPath: '$.items',
          ItemSelector: { 'value.$': '$$.Map.Item.Value' },
          MaxConcurrency: 5,
          ItemProcessor: { ProcessorConfig: { Mode: 'INLINE' }, ...states({ In: { Type: 'Pass', End: true } }) },
          ResultPath: '$.results',
          Next: 'Both',
        },
        Both: {
          Type: 'Parallel',
          Branches: [states({ Sleep: { Type: 'Wait', Seconds: 5, End: true } }), states({ Done: end })],
          Next: 'Work',
        },
        Work: {
          Type: 'Task',
          Resource: 'dispatch.waitForTaskToken',
          Parameters: { 'token.$': '$$.Task.Token', 'job.$': '$.job', fixed: [1, null, { deep: true }] },
          InputPath: '$.in',
          OutputPath: '$.out',
          ResultPath: null,
          TimeoutSeconds: 600,
          HeartbeatSeconds: 60,
          Retry: [
            {
              ErrorEquals: ['throttled'],
              IntervalSeconds: 1,
              MaxAttempts: 5,
              BackoffRate: 2,
              MaxDelaySeconds: 60,
              JitterStrategy: 'FULL',
            },
          ],
          Catch: [{ ErrorEquals: ['States.ALL'], ResultPath: '$.error', Next: 'Bad' }],
          End: true,
        },
        Bad: { Type: 'Fail', Error: 'E', Cause: 'c' },
      }),
    };
    assert.deepEqual(machineSchema.parse(machine), machine);
  });
});
