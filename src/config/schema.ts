import { type TSchema, Type } from '@sinclair/typebox'
import { envSchema } from 'env-schema'
import { type Problem, shown } from './problems.js'
import { InvalidValue } from './value-types.js'
import { ENTRIES, VARIABLES, type Values, type VariableName } from './variables.js'

// Each property is text that the keyword `millrace` parses by the type of its variable. JSON Schema's own coercion is not
// used: it knows no sizes or lists, refuses `1` as a boolean, and its messages do not say what was expected.
const SCHEMA = Type.Object(
  Object.fromEntries(
    ENTRIES.map(([name, variable]): [string, TSchema] => {
      const property = Type.String({
        description: variable.help,
        examples: [variable.example],
        millrace: name,
        ...(variable.default === undefined ? {} : { default: variable.default }),
      })
      return [name, variable.default === undefined ? Type.Optional(property) : property]
    }),
  ),
)

type CustomOptions = Exclude<
  NonNullable<NonNullable<Parameters<typeof envSchema>[0]>['ajv']>,
  { compile: unknown }
>['customOptions']
type AjvInstance = ReturnType<CustomOptions>

let ajv: AjvInstance | undefined

/** env-schema's own validator with the keyword added. It is kept, because compiling the schema takes longer than reading the values. */
function validator(fresh: AjvInstance): AjvInstance {
  ajv ??= fresh.addKeyword({
    keyword: 'millrace',
    type: 'string',
    schemaType: 'string',
    modifying: true,
    errors: true,
    compile: (name: VariableName) => {
      const { type } = VARIABLES[name]
      const read = (value: string, at?: { parentData: object; parentDataProperty: string | number }) => {
        try {
          const parsed = type.parse(value)
          if (parsed === undefined) return invalid(type.expected)
          Object.assign(at!.parentData, { [at!.parentDataProperty]: parsed })
          return true
        } catch (error) {
          if (error instanceof InvalidValue) return invalid(error.message)
          throw error
        }
      }
      const invalid = (message: string) => {
        Object.assign(read, { errors: [{ keyword: 'millrace', message, params: {} }] })
        return false
      }
      return read
    },
  })
  return ajv
}

/**
 * Parses every variable. What cannot be parsed is reported, and has the value of an unset variable in the result, so that
 * the rest can be validated and all problems are found in one start.
 */
export function readValues(env: Readonly<Record<string, string>>): { values: Values; problems: Problem[] } {
  const attempt = (data: Readonly<Record<string, string>>): Values =>
    envSchema<Values>({
      schema: SCHEMA,
      data: { ...data },
      env: false,
      ajv: ajv ?? { customOptions: validator },
    })
  try {
    return { values: attempt(env), problems: [] }
  } catch (error) {
    const faults = (error as { errors?: { instancePath: string; message?: string }[] }).errors
    if (!faults) throw error
    const problems = faults.map(({ instancePath, message }): Problem => {
      const name = instancePath.slice(1)
      return {
        code: 'MILLRACE_E_CONFIG',
        name,
        given: shown(name, env[name] ?? ''),
        expected: message ?? 'another value',
      }
    })
    const faulty = new Set(problems.map((p) => p.name))
    return {
      values: attempt(Object.fromEntries(Object.entries(env).filter(([name]) => !faulty.has(name)))),
      problems,
    }
  }
}
