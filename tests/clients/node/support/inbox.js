// Waiting with a deadline. Loaded by the tests and by the pages in the browser alike.

export const DEADLINE_MS = 15_000;

/** What `promise` resolves to; an error naming `what` if that takes longer than the deadline. */
export async function within(promise, what, ms = DEADLINE_MS) {
  const late = new Error(`waited ${ms} ms in vain for ${what}`); // made here: its stack names the caller
  let timer;
  const deadline = new Promise((_, reject) => {
    timer = setTimeout(() => reject(late), ms);
  });
  try {
    return await Promise.race([promise, deadline]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Everything that came from one source, in the order it came.
 *
 * `next` takes the very next item, so an item nobody asked for makes the test fail: this is how silence is
 * proved, by sending a marker and finding it next.
 */
export class Inbox {
  #name;
  #items = [];
  #takers = [];

  constructor(name) {
    this.#name = name;
  }

  put(item) {
    const taker = this.#takers.shift();
    if (taker) taker(item);
    else this.#items.push(item);
  }

  async next(what = 'anything', ms = DEADLINE_MS) {
    if (this.#items.length > 0) return this.#items.shift();
    let taker;
    const item = new Promise((resolve) => {
      taker = resolve;
      this.#takers.push(taker);
    });
    try {
      return await within(item, `${what} in ${this.#name}`, ms);
    } catch (late) {
      this.#takers = this.#takers.filter((other) => other !== taker);
      throw late;
    }
  }

  /** The first item that `wanted` accepts; those before it are dropped. */
  async find(wanted, what = 'a certain item', ms = DEADLINE_MS) {
    const passed = [];
    for (;;) {
      let item;
      try {
        item = await this.next(what, ms);
      } catch (late) {
        late.message += `; passed over ${JSON.stringify(passed).slice(0, 1000)}`;
        throw late;
      }
      if (wanted(item)) return item;
      passed.push(item);
    }
  }
}
