/**
 * Exact decimals. Prices and sizes travel as the text the exchange sent; this file alone turns text into numbers.
 * A value is held in three integer limbs, `whole + nano·10⁻⁹ + atto·10⁻¹⁸`, so that sums allocate nothing and never
 * drift: 13 digits before the point, 18 after it.
 */

const LIMB = 1_000_000_000
const POWERS = Array.from({ length: 23 }, (_, exponent) => 10 ** exponent)
/** So many digits leave room for sums of thousands of sizes within the exact integers of a double. */
const WHOLE_DIGITS_MAX = 13

/** The limbs of the text that `readDecimal` read last. */
export let whole = 0
export let nano = 0
export let atto = 0

let lastRead = ''
let lastReadable = false

/**
 * Reads an unsigned decimal (`12`, `0.5`, `1e-7`) into `whole`, `nano` and `atto`.
 * False when the text is no such number or needs more digits than the limbs hold.
 */
export function readDecimal(text: string): boolean {
  // The same text is asked for again and again: checked with its frame, then applied.
  if (text === lastRead) return lastReadable
  lastRead = text
  lastReadable = readAnew(text)
  return lastReadable
}

function readAnew(text: string): boolean {
  const length = text.length
  let at = 0
  let value = 0
  let code = text.charCodeAt(0)
  while (code >= 48 && code <= 57) {
    value = value * 10 + (code - 48)
    code = text.charCodeAt(++at)
  }
  if (at === 0 || at > WHOLE_DIGITS_MAX) return readUnusual(text)
  whole = value
  nano = 0
  atto = 0
  if (at === length) return true
  if (code !== 46) return readUnusual(text)
  const first = ++at
  let fraction = 0
  code = text.charCodeAt(at)
  while (code >= 48 && code <= 57 && at - first < 9) {
    fraction = fraction * 10 + (code - 48)
    code = text.charCodeAt(++at)
  }
  if (at === first || at !== length) return readUnusual(text)
  nano = fraction * POWERS[9 - (at - first)]!
  return true
}

/** The rare forms: exponents, leading zeros, more than nine digits after the point. */
function readUnusual(text: string): boolean {
  const match = /^(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d{1,4}))?$/.exec(text)
  if (!match) return false
  const exponent = Number(match[3] ?? 0)
  let digits = match[1]! + (match[2] ?? '')
  let point = match[1]!.length + exponent
  if (Math.abs(point) > 100 || digits.length > 100) return false
  if (point < 0) {
    digits = '0'.repeat(-point) + digits
    point = 0
  }
  digits = digits.padEnd(point, '0')
  const front = digits.slice(0, point).replace(/^0+/, '')
  const back = digits.slice(point).replace(/0+$/, '')
  if (front.length > WHOLE_DIGITS_MAX || back.length > 18) return false
  whole = Number(front)
  const padded = back.padEnd(18, '0')
  nano = Number(padded.slice(0, 9))
  atto = Number(padded.slice(9))
  return true
}

/** Whether the text is an unsigned decimal that the book can hold. */
export function isDecimal(text: string): boolean {
  return readDecimal(text)
}

/** Whether the text is numerically zero (`0`, `0.00`). False for what is no number. */
export function isZero(text: string): boolean {
  return readDecimal(text) && whole === 0 && nano === 0 && atto === 0
}

let lastPrice = ''
let lastKey = Number.NaN

/**
 * The sort key of a price: the nearest double, which tells all prices of at most 15 significant digits apart.
 * NaN when the text is no unsigned decimal or has more significant digits.
 */
export function priceKey(text: string): number {
  if (text !== lastPrice) {
    lastPrice = text
    lastKey = keyAnew(text)
  }
  return lastKey
}

function keyAnew(text: string): number {
  const length = text.length
  let digits = 0
  let value = 0
  let scale = -1
  for (let at = 0; at < length; at++) {
    const code = text.charCodeAt(at)
    if (code >= 48 && code <= 57) {
      value = value * 10 + (code - 48)
      if (value !== 0) digits++
      if (scale >= 0) scale++
    } else if (code === 46 && scale < 0 && at > 0 && at < length - 1) scale = 0
    else return unusualKey(text)
  }
  if (length === 0) return Number.NaN
  if (digits > 15 || scale > 22) return unusualKey(text)
  return scale > 0 ? value / POWERS[scale]! : value
}

function unusualKey(text: string): number {
  const match = /^(\d+)(?:\.(\d+))?(?:[eE][+-]?\d{1,4})?$/.exec(text)
  if (!match) return Number.NaN
  const digits = (match[1]! + (match[2] ?? '')).replace(/^0+/, '').replace(/0+$/, '')
  const key = Number(text)
  return digits.length > 15 || !Number.isFinite(key) ? Number.NaN : key
}

/** The value that `scanDecimal` found last: exact in order and in being zero, the nearest double in size. */
export let scanned = 0

/**
 * Reads a plain decimal (`0.5`, `43250.5`) inside a longer text, without cutting it out. Gives where it ends, or -1 when
 * there is none or when it has more digits than the fast way can tell apart.
 */
export function scanDecimal(text: string, start: number): number {
  let at = start
  let value = 0
  let code = text.charCodeAt(at)
  while (code >= 48 && code <= 57) {
    value = value * 10 + (code - 48)
    code = text.charCodeAt(++at)
  }
  const front = at - start
  // Without leading zeros, texts of one value and one length are one text.
  if (front === 0 || front > WHOLE_DIGITS_MAX || (front > 1 && text.charCodeAt(start) === 48)) return -1
  if (code === 46) {
    const point = ++at
    code = text.charCodeAt(at)
    while (code >= 48 && code <= 57) {
      value = value * 10 + (code - 48)
      code = text.charCodeAt(++at)
    }
    const scale = at - point
    if (scale === 0 || front + scale > 15) return -1
    value /= POWERS[scale]!
  }
  scanned = value
  return at
}

/** A running exact sum of decimals. Never negative as long as only what was added is taken away. */
export class Sum {
  whole = 0
  nano = 0
  atto = 0

  /** Adds what `readDecimal` read last. */
  addRead(): void {
    this.whole += whole
    this.nano += nano
    this.atto += atto
    this.carry()
  }

  /** Takes away what `readDecimal` read last. */
  subtractRead(): void {
    this.whole -= whole
    this.nano -= nano
    this.atto -= atto
    this.carry()
  }

  /** Back to zero. */
  clear(): void {
    this.whole = this.nano = this.atto = 0
  }

  private carry(): void {
    if (this.atto >= LIMB) {
      this.atto -= LIMB
      this.nano++
    } else if (this.atto < 0) {
      this.atto += LIMB
      this.nano--
    }
    if (this.nano >= LIMB) {
      this.nano -= LIMB
      this.whole++
    } else if (this.nano < 0) {
      this.nano += LIMB
      this.whole--
    }
  }

  /** Plain text: no exponent, no trailing zeros. */
  toString(): string {
    return plain(this.whole, this.nano, this.atto)
  }
}

function plain(front: number, nanos: number, attos: number): string {
  if (nanos === 0 && attos === 0) return String(front)
  let back = String(nanos + LIMB).slice(1)
  if (attos !== 0) back += String(attos + LIMB).slice(1)
  let end = back.length
  while (back.charCodeAt(end - 1) === 48) end--
  return `${front}.${end === back.length ? back : back.slice(0, end)}`
}

const SCALE = 18n

/** A decimal as an integer of 10⁻¹⁸. The text must be readable by `readDecimal`. */
function scaled(text: string): bigint {
  readDecimal(text)
  return BigInt(whole) * 10n ** SCALE + BigInt(nano) * BigInt(LIMB) + BigInt(atto)
}

function fromScaled(value: bigint, decimals: bigint): string {
  const sign = value < 0n ? '-' : ''
  const digits = (value < 0n ? -value : value).toString().padStart(Number(decimals) + 1, '0')
  const front = digits.slice(0, -Number(decimals))
  const back = digits.slice(-Number(decimals)).replace(/0+$/, '')
  return sign + front + (back ? `.${back}` : '')
}

/** The exact middle of two prices, as plain text. */
export function middle(a: string, b: string): string {
  return fromScaled((scaled(a) + scaled(b)) * 5n, SCALE + 1n)
}

/** `a − b`, exact, as plain text; negative where a book is crossed. */
export function difference(a: string, b: string): string {
  return fromScaled(scaled(a) - scaled(b), SCALE)
}
