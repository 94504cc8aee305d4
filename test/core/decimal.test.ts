import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { difference, isDecimal, isZero, middle, priceKey, readDecimal, Sum } from '../../src/core/decimal.ts'

/** A decimal text in one of the forms an exchange may print, with its value as an integer of 10⁻¹⁸. */
interface Written {
  readonly text: string
  readonly value: bigint
}

/** The digits with a point put `scale` places from the right, plain or with an exponent. */
function write(digits: bigint, scale: number, form: 'plain' | 'exponent' | 'padded'): Written {
  const value = digits * 10n ** BigInt(18 - scale)
  if (form === 'exponent') return { text: `${digits}e-${scale}`, value }
  const all = digits.toString().padStart(scale + 1, '0')
  const plain = scale === 0 ? all : `${all.slice(0, -scale)}.${all.slice(-scale)}`
  return { text: form === 'padded' && scale > 0 && scale < 17 ? `${plain}00` : plain, value }
}

const FORM = fc.constantFrom('plain' as const, 'exponent' as const, 'padded' as const)
const SCALE = fc.integer({ min: 0, max: 18 })
const DECIMAL = fc.tuple(fc.bigInt({ min: 0n, max: 10n ** 12n }), SCALE, FORM).map(([d, s, f]) => write(d, s, f))
/** At most 15 significant digits, as prices have. */
const PRICE = fc
  .tuple(fc.bigInt({ min: 0n, max: 10n ** 15n - 1n }), SCALE, FORM)
  .map(([digits, scale, form]) => write(digits, scale, form))

/** The oracle's plain text: no exponent, no trailing zeros. */
function plain(value: bigint, decimals = 18): string {
  const digits = (value < 0n ? -value : value).toString().padStart(decimals + 1, '0')
  const back = digits.slice(-decimals).replace(/0+$/, '')
  return (value < 0n ? '-' : '') + digits.slice(0, -decimals) + (back ? `.${back}` : '')
}

describe('sums', () => {
  it('are those of integers, whatever is added and taken away', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(DECIMAL, fc.boolean()), { maxLength: 60 }), steps => {
        const sum = new Sum()
        const held: Written[] = []
        let expected = 0n
        for (const [decimal, takes] of steps) {
          const old = takes ? held.shift() : undefined
          if (old) {
            expect(readDecimal(old.text)).toBe(true)
            sum.subtractRead()
            expected -= old.value
          } else {
            expect(readDecimal(decimal.text), decimal.text).toBe(true)
            sum.addRead()
            held.push(decimal)
            expected += decimal.value
          }
          expect(sum.toString()).toBe(plain(expected))
        }
      })
    )
  })

  it('come back to zero', () => {
    const sum = new Sum()
    for (const text of ['0.1', '0.2', '1e-18', '9999999999999.999999999']) {
      readDecimal(text)
      sum.addRead()
    }
    for (const text of ['0.10', '2e-1', '0.000000000000000001', '9999999999999.999999999']) {
      readDecimal(text)
      sum.subtractRead()
    }
    expect(sum.toString()).toBe('0')
  })
})

describe('middle and difference', () => {
  it('are exact', () => {
    fc.assert(
      fc.property(DECIMAL, DECIMAL, (a, b) => {
        expect(middle(a.text, b.text)).toBe(plain((a.value + b.value) * 5n, 19))
        expect(difference(a.text, b.text)).toBe(plain(a.value - b.value))
      })
    )
  })

  it('of known prices', () => {
    expect(middle('43250.5', '43251.0')).toBe('43250.75')
    expect(difference('43251.0', '43250.5')).toBe('0.5')
    expect(difference('100', '100.50')).toBe('-0.5')
    expect(middle('1e-7', '2e-7')).toBe('0.00000015')
    expect(middle('1e-18', '2e-18')).toBe('0.0000000000000000015')
  })
})

describe('price keys', () => {
  it('order prices as numbers, and equal numbers are one key whatever their form', () => {
    fc.assert(
      fc.property(PRICE, PRICE, (a, b) => {
        const [x, y] = [priceKey(a.text), priceKey(b.text)]
        expect([Number.isNaN(x), Number.isNaN(y)]).toEqual([false, false])
        expect(Math.sign(x - y), `${a.text} against ${b.text}`).toBe(a.value < b.value ? -1 : a.value > b.value ? 1 : 0)
      }),
      { numRuns: 1000 }
    )
  })

  it('of neighbours differ', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 10n ** 14n, max: 10n ** 15n - 2n }), SCALE, FORM, FORM, (digits, scale, f, g) => {
        const [a, b] = [write(digits, scale, f), write(digits + 1n, scale, g)]
        expect(priceKey(a.text), `${a.text} before ${b.text}`).toBeLessThan(priceKey(b.text))
      })
    )
  })

  it.each([
    ['1e-7', 1e-7],
    ['0.0000001', 1e-7],
    ['4.9E-7', 4.9e-7],
    ['1.5e+3', 1500],
    ['100000000000000000000', 1e20],
    ['0', 0],
    ['0e0', 0]
  ])('reads %s', (text, key) => {
    expect(priceKey(text)).toBe(key)
  })
})

describe('text that is no unsigned decimal', () => {
  const WRONG = ['', '-1', '+1', '.5', '5.', '1,5', '1.2.3', 'abc', ' 1', '1 ', '1\n', '0x10', 'NaN', 'Infinity']
  it.each([...WRONG, '1e', 'e5', '1e5.5', '1e400', '1e-400', '--1', '1_000', '٣'])('%j is refused', text => {
    expect(isDecimal(text)).toBe(false)
    expect(isZero(text)).toBe(false)
    expect(Number.isNaN(priceKey(text)) || text === '1e-400').toBe(true)
  })

  it('is refused where the limbs would lose digits, and taken where they just hold them', () => {
    expect(isDecimal('9999999999999.999999999999999999')).toBe(true)
    expect(isDecimal('10000000000000')).toBe(false)
    expect(isDecimal('0.0000000000000000001')).toBe(false)
    expect(isDecimal('0.0000000000000000010')).toBe(true)
    expect(isDecimal('000000000000000000012')).toBe(true)
    expect(Number.isNaN(priceKey('1234567890.123456'))).toBe(true)
    expect(priceKey('1234567890.12345')).toBe(1234567890.12345)
  })

  it('agrees with the grammar on arbitrary text', () => {
    const near = fc.array(fc.constantFrom(...'0123456789.eE+-x '), { maxLength: 12 }).map(parts => parts.join(''))
    fc.assert(
      fc.property(near, text => {
        const match = /^\d+(\.\d+)?([eE][+-]?\d{1,4})?$/.test(text)
        if (!match) expect(isDecimal(text), JSON.stringify(text)).toBe(false)
        // Short and without an exponent everything fits.
        else if (!/e/i.test(text)) expect(isDecimal(text), JSON.stringify(text)).toBe(true)
        if (isDecimal(text)) {
          const sum = new Sum()
          readDecimal(text)
          sum.addRead()
          // The oracle: the digits shifted by the exponent.
          const [, front, back = '', exponent = '0'] = /^(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(text)!
          const shift = 18 + Number(exponent) - back.length
          const value = BigInt(front + back)
          const scaled = shift >= 0 ? value * 10n ** BigInt(shift) : value / 10n ** BigInt(-shift)
          expect(sum.toString(), text).toBe(plain(scaled))
          expect(isZero(text)).toBe(scaled === 0n)
        }
      }),
      { numRuns: 2000 }
    )
  })
})
