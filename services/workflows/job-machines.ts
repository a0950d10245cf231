/** The state machines of jobs, as data: Step Functions and the embedded interpreter run the same text. */

/** Resources that the machines call; ./steps.ts has what each does. */
export const ADMIT = 'admit-job';
export const DISPATCH = 'dispatch-job';
export const SETTLE = 'settle-job';

export interface JobMachineSettings {
  /** A proxy that is silent for so long has lost its job: it is dispatched again. */
  readonly heartbeatSeconds: number;
  /** How often a job is dispatched again after silence; its proxy may be restarting. */
  readonly silenceRetries: number;
  /** Seconds between looks for a free slot, at first and at most. */
  readonly slotWaitSeconds: number;
  readonly slotWaitMaxSeconds: number;
  /** The longest one attempt may last. */
  readonly attemptSeconds: number;
}

/** A dead proxy's job fails about 12 minutes after its last sign of life; one without a slot after about a day. */
export const DEFAULT_JOB_MACHINE_SETTINGS: JobMachineSettings = {
  heartbeatSeconds: 120,
  silenceRetries: 5,
  slotWaitSeconds: 2,
  slotWaitMaxSeconds: 30,
  attemptSeconds: 7 * 86_400,
};

const SLOT_ATTEMPTS = 2900;
const PASSED = { 'tenant.$': '$.tenant', 'job.$': '$.job' };

/** `ProtectMachine` (one machine's backup) and `RestoreRun` (one disk's restore): admit → dispatch → settle. */
export function jobMachines(settings: JobMachineSettings) {
  return {
    ProtectMachine: jobMachine('Backs up one machine', settings),
    RestoreRun: jobMachine('Restores one disk', settings),
  };
}

function jobMachine(comment: string, settings: JobMachineSettings) {
  // Whatever goes wrong before it, a job is settled; whatever goes wrong in settling, it is tried again for hours,
  // and after that the sweep finds the job.
  const persistent = {
    ErrorEquals: ['States.ALL'],
    IntervalSeconds: 1,
    BackoffRate: 2,
    MaxDelaySeconds: 60,
    MaxAttempts: 200,
  };
  const caught = [{ ErrorEquals: ['States.ALL'], ResultPath: '$.caught', Next: 'SettleFailed' }];
  return {
    Comment: comment,
    StartAt: 'Admit',
    States: {
      Admit: {
        Type: 'Task',
        Resource: ADMIT,
        Parameters: PASSED,
        ResultPath: null,
        Retry: [
          {
            ErrorEquals: ['busy'],
            IntervalSeconds: settings.slotWaitSeconds,
            BackoffRate: 1.5,
            MaxDelaySeconds: settings.slotWaitMaxSeconds,
            MaxAttempts: SLOT_ATTEMPTS,
          },
          { ErrorEquals: ['internal', 'conflict', 'store-failed'], IntervalSeconds: 1, BackoffRate: 2, MaxAttempts: 5 },
        ],
        Catch: caught,
        Next: 'Dispatch',
      },
      Dispatch: {
        Type: 'Task',
        Resource: `${DISPATCH}.waitForTaskToken`,
        Parameters: { ...PASSED, 'token.$': '$$.Task.Token' },
        ResultPath: null,
        HeartbeatSeconds: settings.heartbeatSeconds,
        TimeoutSeconds: settings.attemptSeconds,
        Retry: [
          {
            ErrorEquals: ['States.HeartbeatTimeout'],
            IntervalSeconds: 1,
            BackoffRate: 1,
            MaxAttempts: settings.silenceRetries,
          },
          {
            ErrorEquals: ['Task.Retryable', 'internal', 'conflict', 'store-failed'],
            IntervalSeconds: 2,
            BackoffRate: 3,
            MaxAttempts: 3,
          },
        ],
        Catch: caught,
        Next: 'Settle',
      },
      Settle: { Type: 'Task', Resource: SETTLE, Parameters: PASSED, Retry: [persistent], End: true },
      SettleFailed: {
        Type: 'Task',
        Resource: SETTLE,
        Parameters: { ...PASSED, 'caught.$': '$.caught' },
        Retry: [persistent],
        End: true,
      },
    },
  };
}
