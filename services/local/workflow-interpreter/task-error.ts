import { HoldfastError } from '#contract/errors.ts';

/** A failure inside an execution, as states see it: a name that Retry and Catch match, and a text for people. */
export class TaskError extends Error {
  override readonly name = 'TaskError';
  readonly error: string;

  /** @param error  such as `States.Timeout` or an ErrorCode */
  constructor(error: string, cause: string) {
    super(cause);
    this.error = error;
  }
}

/** What a handler threw, as a state sees it: ours by their code, others by the name of their class. */
export function taskErrorOf(thrown: unknown): TaskError {
  if (thrown instanceof TaskError) return thrown;
  if (thrown instanceof HoldfastError) return new TaskError(thrown.code, thrown.message);
  if (thrown instanceof Error) return new TaskError(thrown.name, thrown.message);
  return new TaskError('Error', String(thrown));
}
