/** Gathers single questions asked in the same turn of the event loop and answers them by one call. */
export class Batches<K, V> {
  readonly #max: number;
  readonly #answerAll: (keys: readonly K[]) => Promise<readonly V[]>;
  #waiting: { key: K; resolve: (value: V) => void; reject: (error: unknown) => void }[] = [];

  /** @param max  questions in one call; @param answerAll  answers in the order of the questions */
  constructor(max: number, answerAll: (keys: readonly K[]) => Promise<readonly V[]>) {
    this.#max = max;
    this.#answerAll = answerAll;
  }

  ask(key: K): Promise<V> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ key, resolve, reject });
      if (this.#waiting.length === 1) setImmediate(() => this.#flush());
    });
  }

  #flush(): void {
    const all = this.#waiting;
    this.#waiting = [];
    for (let at = 0; at < all.length; at += this.#max) {
      const group = all.slice(at, at + this.#max);
      this.#answerAll(group.map(({ key }) => key)).then(
        (answers) => {
          group.forEach(({ resolve }, i) => {
            resolve(answers[i]!);
          });
        },
        (error: unknown) => {
          for (const { reject } of group) reject(error);
        },
      );
    }
  }
}
