/**
 * At-least-once messages. Adapters: SQLite (services/local), SQS fair queues (services/aws).
 * A queue is named by its reader, such as `proxy/pxy_01…`.
 */
export interface Queue {
  /** @param group  the tenant, so that one tenant's backlog does not hold up the others */
  send(
    queue: string,
    body: string,
    options?: { readonly group?: string; readonly delaySeconds?: number },
  ): Promise<void>;
  /** Up to `max` messages, hidden from other receivers for `visibilitySeconds`; waits up to `waitSeconds` for the first. */
  receive(queue: string, options: ReceiveOptions): Promise<readonly QueueMessage[]>;
  /** Removes a received message for good. Unknown receipts are ignored. */
  ack(queue: string, receipt: string): Promise<void>;
}

export interface ReceiveOptions {
  readonly max?: number;
  readonly waitSeconds?: number;
  readonly visibilitySeconds: number;
  readonly signal?: AbortSignal;
}

export interface QueueMessage {
  readonly id: string;
  readonly body: string;
  readonly receipt: string;
  /** 1 on the first delivery. */
  readonly deliveries: number;
}
