import { machineSchema } from '#workflows/asl.ts';

export const EXECUTIONS = 20;
/** How long each task takes, in milliseconds. */
export const TASK_MS = 15;
/** Tasks in a row, before what follows them. */
export const STEPS = 50;
/** Items of the Map. */
export const ITEMS = ['x', 'y', 'z'];

const step = (name: string, next: string, resource = 'step') => ({
  Type: 'Task',
  Resource: resource,
  Parameters: { key: name, 'who.$': '$.who', 'n.$': '$.at.n' },
  ResultPath: '$.at',
  Next: next,
});

/** Every kind of state that takes time: tasks in a row, a token, a Map of two tasks each, a Parallel, a wait, a failure. */
export const journey = machineSchema.parse({
  StartAt: 'S0',
  States: {
    ...Object.fromEntries(
      Array.from({ length: STEPS }, (_, i) => [`S${i}`, step(`S${i}`, i + 1 < STEPS ? `S${i + 1}` : 'Token')]),
    ),
    Token: step('Token', 'Items', 'step.waitForTaskToken'),
    Items: { Type: 'Pass', Result: ITEMS, ResultPath: '$.items', Next: 'Each' },
    Each: {
      Type: 'Map',
      ItemsPath: '$.items',
      ItemSelector: { 'who.$': '$.who', 'at.$': '$.at', 'key.$': '$$.Map.Item.Value' },
      MaxConcurrency: 2,
      ItemProcessor: {
        StartAt: 'One',
        States: {
          One: {
            Type: 'Task',
            Resource: 'step',
            Parameters: { 'key.$': '$.key', 'who.$': '$.who', 'n.$': '$.at.n' },
            ResultPath: '$.at',
            Next: 'Rename',
          },
          Rename: { Type: 'Pass', Result: 'second', ResultPath: '$.part', Next: 'Two' },
          Two: {
            Type: 'Task',
            Resource: 'step',
            Parameters: { 'key.$': '$.part', 'who.$': '$.who', 'n.$': '$.at.n' },
            End: true,
          },
        },
      },
      ResultPath: '$.each',
      Next: 'Both',
    },
    Both: {
      Type: 'Parallel',
      Branches: ['Left', 'Right'].map((name) => ({
        StartAt: name,
        States: { [name]: { ...step(name, ''), Next: undefined, End: true } },
      })),
      ResultPath: null,
      Next: 'Sleep',
    },
    Sleep: { Type: 'Wait', Seconds: 1, Next: 'Last' },
    Last: step('Last', 'Done', 'fail'),
    Done: { Type: 'Succeed', OutputPath: '$' },
  },
});
