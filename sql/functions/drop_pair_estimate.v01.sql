-- Removes jaccard_estimate, so that another version of it can be made.
DROP FUNCTION jaccard_estimate(integer, integer, integer, integer, integer);
