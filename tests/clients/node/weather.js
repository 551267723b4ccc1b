// A tool and a document schema for the tests of all clients. They have few values, so that a small model is done quickly.
import { z } from "zod";

export const question = "Is it raining in Bonn?";

export const Weather = z.object({ city: z.enum(["Oslo", "Bonn"]), rain: z.boolean() }).strict();
