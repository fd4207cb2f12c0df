DROP FUNCTION refuse_filter(text, text);
DROP FUNCTION nearest_name(text, text[]);
DROP FUNCTION filter_values(text);
